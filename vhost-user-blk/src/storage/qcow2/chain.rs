//! Opening an image and those below it. imago opens nothing by itself: every file is named, checked
//! and opened here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::header::{self, Header, Refusal};
use super::host_file::{HostFile, read};
use super::layer::{Layer, Role};
use super::reference_counts;
use crate::storage::file::OpenError;
use crate::storage::format::Format;
use crate::tasks::block_on;

/// Most images in a chain, and with it the memory for their tables.
const MAX_IMAGES: usize = 16;

/// Which files an image may name as its backing file. Whoever made the image chose the name, and the
/// guest reads the file.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackingFiles {
    /// None: the image has to stand alone.
    None,
    /// Files in the image's own directory and below it.
    Near,
    /// Every file of the host.
    Any,
}

/// A qcow2 image cannot be served.
#[derive(Debug, Error)]
pub enum Qcow2Error {
    /// A file of the chain cannot be opened.
    #[error(transparent)]
    File(#[from] OpenError),
    /// Its header cannot be read.
    #[error("cannot read the header and tables of {path}")]
    Header {
        /// The image.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something in its header.
    #[error("{path} {why}")]
    Refused {
        /// The image.
        path: PathBuf,
        /// What it is.
        why: Refusal,
    },
    /// Its tables.
    #[error("the tables of {path} cannot be used; `qemu-img check` tells more")]
    Tables {
        /// The image.
        path: PathBuf,
        /// imago's reason.
        source: io::Error,
    },
    /// `--backing none`.
    #[error("{image} has the backing file {backing}, which --backing none forbids")]
    BackingForbidden {
        /// The image.
        image: PathBuf,
        /// What it names.
        backing: PathBuf,
    },
    /// `--backing near`.
    #[error(
        "{image} has the backing file {backing}, which is not below {directory}: give --backing any if \
         you trust who made the image"
    )]
    BackingElsewhere {
        /// The image.
        image: PathBuf,
        /// What it names.
        backing: PathBuf,
        /// Where it should be.
        directory: PathBuf,
    },
    /// A chain that leads back to itself.
    #[error("the backing files of {image} lead back to {again}")]
    Loop {
        /// The image that is served.
        image: PathBuf,
        /// What comes twice.
        again: PathBuf,
    },
    /// A chain without a reasonable end.
    #[error(
        "{0} stands on more than {MAX_IMAGES} backing files; shorten it with `qemu-img rebase`"
    )]
    TooDeep(PathBuf),
}

/// One file of the chain, opened and checked.
struct Link {
    file: Arc<HostFile>,
    /// `None` for a raw file.
    header: Option<Header>,
}

/// How the chain is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChainOptions {
    pub(super) read_only: bool,
    pub(super) direct: bool,
    pub(super) backing: BackingFiles,
}

/// An image with those below it.
pub(super) struct Chain {
    pub(super) access: FormatAccess<Layer>,
    /// The image's own file.
    pub(super) file: Arc<HostFile>,
    pub(super) header: Header,
    /// What direct I/O asks of all files.
    pub(super) alignment: usize,
}

impl Chain {
    /// Opens `image`, for writing unless told otherwise, and what it stands on for reading.
    pub(super) fn open(image: &Path, options: ChainOptions) -> Result<Self, Qcow2Error> {
        let links = open_links(image, options)?;
        let alignment = links.iter().map(|link| link.file.alignment).max();
        let top = links
            .first()
            .map(|link| (link.file.clone(), link.header.clone()));
        let mut below = None;
        for (depth, link) in links.into_iter().enumerate().rev() {
            let writable = depth == 0 && !options.read_only;
            let path = link.file.path.clone();
            let opening = AssertUnwindSafe(|| block_on(link.open(below.take(), writable)));
            let opened = catch_unwind(opening)
                .unwrap_or_else(|_| Err(io::Error::other("the parser panicked")));
            below = Some(opened.map_err(|source| Qcow2Error::Tables { path, source })?);
        }
        match (below, top) {
            (Some(access), Some((file, Some(header)))) => Ok(Self {
                access,
                file,
                header,
                alignment: alignment.unwrap_or(1),
            }),
            _ => Err(Qcow2Error::Refused {
                path: image.to_owned(),
                why: Refusal::NotQcow2,
            }),
        }
    }
}

impl Link {
    async fn open(
        self,
        below: Option<FormatAccess<Layer>>,
        writable: bool,
    ) -> io::Result<FormatAccess<Layer>> {
        let layer = |role| Layer {
            file: self.file.clone(),
            role,
        };
        if self.header.is_none() {
            let raw = Raw::open_image(layer(Role::Data), false).await?;
            return Ok(FormatAccess::new(raw));
        }
        let image = Qcow2::<Layer>::builder(layer(Role::Tables))
            // The same file: imago keeps what it writes there apart from the tables.
            .data_file(Some(layer(Role::Data)))
            .backing(below)
            .write(writable)
            .open(DenyImplicitOpenGate::default())
            .await?;
        Ok(FormatAccess::new(image))
    }
}

fn open_links(image: &Path, options: ChainOptions) -> Result<Vec<Link>, Qcow2Error> {
    let mut links: Vec<Link> = Vec::new();
    let mut seen = Vec::new();
    let (mut path, mut format) = (image.to_owned(), Format::Qcow2);
    loop {
        if links.len() == MAX_IMAGES {
            return Err(Qcow2Error::TooDeep(image.to_owned()));
        }
        let id = identity(&path)?;
        if seen.contains(&id) {
            return Err(Qcow2Error::Loop {
                image: image.to_owned(),
                again: path,
            });
        }
        seen.push(id);
        let read_only = options.read_only || !links.is_empty();
        let file = Arc::new(HostFile::open(&path, read_only, options.direct)?);
        let header = match format {
            Format::Raw => None,
            Format::Qcow2 => Some(read_header(&path, read_only)?),
        };
        let backing = header.as_ref().and_then(|header| header.backing.clone());
        links.push(Link { file, header });
        let Some(backing) = backing else {
            return Ok(links);
        };
        format = backing.format;
        path = permitted(image, &path, Path::new(&backing.file), options.backing)?;
    }
}

fn identity(path: &Path) -> Result<(u64, u64), OpenError> {
    let stat = fs::metadata(path).map_err(|source| OpenError::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok((stat.dev(), stat.ino()))
}

/// Reads an image's header and, unless nothing will be written, checks what it counts.
fn read_header(path: &Path, read_only: bool) -> Result<Header, Qcow2Error> {
    let failed = |source| Qcow2Error::Header {
        path: path.to_owned(),
        source,
    };
    // A descriptor without O_DIRECT.
    let file = fs::File::open(path).map_err(failed)?;
    let start = read(&file, &(0..header::V3_BYTES as u64)).map_err(failed)?;
    let bytes = read(&file, &(0..header::wanted(&start))).map_err(failed)?;
    let refused = |why| Qcow2Error::Refused {
        path: path.to_owned(),
        why,
    };
    let header = Header::parse(&bytes).map_err(refused)?;
    if !read_only && !reference_counts::are_sound(&file, &header.tables).map_err(failed)? {
        return Err(refused(Refusal::ReferenceCounts));
    }
    Ok(header)
}

/// Where the backing file `named` by `image` is, if the chain of `top` may lead there.
fn permitted(
    top: &Path,
    image: &Path,
    named: &Path,
    allowed: BackingFiles,
) -> Result<PathBuf, Qcow2Error> {
    let backing = directory(image).join(named);
    if allowed == BackingFiles::None {
        return Err(Qcow2Error::BackingForbidden {
            image: image.to_owned(),
            backing,
        });
    }
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|source| OpenError::Open {
            path: path.to_owned(),
            source,
        })
    };
    // The real path, so that no link leads away from where it was allowed.
    let backing = real(&backing)?;
    let directory = real(&directory(top))?;
    if allowed == BackingFiles::Near && !backing.starts_with(&directory) {
        return Err(Qcow2Error::BackingElsewhere {
            image: image.to_owned(),
            backing,
            directory,
        });
    }
    Ok(backing)
}

fn directory(image: &Path) -> PathBuf {
    match image.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
