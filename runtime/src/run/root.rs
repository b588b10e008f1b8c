//! What the guest's root file system is served from.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use anyhow::Result;
use tempfile::TempPath;

use super::RootSource;
use super::event::Event;
use super::prepare::unless_interrupted;
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
    pub(super) fn obtain(source: &RootSource, events: &Receiver<Event>) -> Result<Self> {
        Ok(match source {
            RootSource::Directory(directory) => Self::Directory(directory.clone()),
            RootSource::Image(image) => Self::Image(image.clone()),
            RootSource::ImageOf { directory, keep } => match keep {
                Some(image) => {
                    filled(Draft::beside(image)?, directory, events)?.keep_older(image)?;
                    Self::Image(image.clone())
                }
                None => {
                    let draft = filled(Draft::in_cache()?, directory, events)?;
                    Self::Temporary(draft.into_temporary())
                }
            },
        })
    }
}

fn filled(draft: Draft, directory: &Path, events: &Receiver<Event>) -> Result<Draft> {
    let filling = draft.filling(directory, None)?;
    unless_interrupted(events, || filling.run())??;
    Ok(draft)
}
