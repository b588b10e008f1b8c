//! Settings with a few words to choose from.

use crate::field::{Field, Given};

macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$what])* $variant,)+
        }

        impl $name {
            /// As it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl Field for $name {
            fn takes() -> String {
                [$(concat!("`\"", $word, "\"`")),+].join(", ")
            }

            fn read(given: Given<'_>) -> Result<Self, String> {
                match given {
                    $(Given::Text($word) => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", [$(concat!("\"", $word, "\"")),+].join(", "))),
                }
            }

            fn show(&self) -> Option<String> {
                Some(format!("\"{}\"", self.as_str()))
            }
        }
    };
}

choice! {
    /// What runs a pod's machine.
    Hypervisor {
        /// Our VMM where KVM is native, else QEMU.
        Auto = "auto",
        /// `ringside-vmm`, which needs native KVM.
        Vmm = "vmm",
        /// `qemu-system-x86_64`, with KVM or without.
        Qemu = "qemu",
    }
}

choice! {
    /// How a container's root file system reaches the guest.
    RootFs {
        /// The snapshot's directory is shared.
        VirtioFs = "virtiofs",
        /// The snapshot is a disk.
        Block = "block",
    }
}

choice! {
    /// What guests may keep of a shared file system (`virtiofsd --cache`).
    Cache {
        /// Names and attributes for a second, data until the file changes.
        Auto = "auto",
        /// Everything, for a day.
        Always = "always",
        /// Nothing.
        Never = "never",
        /// Names and attributes for a day, no data.
        Metadata = "metadata",
    }
}
