//! What the guest's root file system is served from.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempPath;

use super::RootSource;
use super::prepare::unless_interrupted;
use super::signals::Signals;
use crate::disk_image::Draft;

/// The root, ready to be served.
#[derive(Debug)]
pub(super) enum Root {
    /// A directory.
    Directory(PathBuf),
    /// An image that stays.
    Image(PathBuf),
    /// An image for this run alone. Its name goes once the daemons serve and the machine is put
    /// together: the daemon has it open, and nothing can be left behind.
    Temporary(TempPath),
}

impl Root {
    /// Makes the image where there is none; a signal ends that.
    pub(super) fn obtain(source: &RootSource, signals: &mut Signals) -> Result<Self> {
        Ok(match source {
            RootSource::Directory(directory) => Self::Directory(directory.clone()),
            RootSource::Image(image) => Self::Image(image.clone()),
            RootSource::ImageOf { directory, keep } => match keep {
                Some(image) => {
                    filled(Draft::beside(image)?, directory, signals)?.keep_older(image)?;
                    Self::Image(image.clone())
                }
                None => {
                    let draft = filled(Draft::in_cache()?, directory, signals)?;
                    Self::Temporary(draft.into_temporary())
                }
            },
        })
    }
}

fn filled(draft: Draft, directory: &Path, signals: &mut Signals) -> Result<Draft> {
    let filling = draft.filling(directory, None)?;
    unless_interrupted(signals, || filling.run())??;
    Ok(draft)
}
