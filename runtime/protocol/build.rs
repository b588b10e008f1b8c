//! Generates the pod agent's messages and service from `proto/agent.proto`.

fn main() {
    println!("cargo::rerun-if-changed=proto/agent.proto");
    #[cfg(any(feature = "agent", feature = "host"))]
    if let Err(error) = generated::write() {
        println!("cargo::error=cannot generate code from proto/agent.proto: {error}");
    }
}

#[cfg(any(feature = "agent", feature = "host"))]
mod generated {
    use std::path::{Path, PathBuf};
    use std::{env, fs, io};

    use ttrpc_codegen::{Codegen, Customize};

    /// The messages once, and the service for each side: one compilation may want both.
    pub(super) fn write() -> io::Result<()> {
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
        let agent = generate(&out.join("blocking"), false)?;
        let host = generate(&out.join("tokio"), true)?;
        fs::copy(agent.join("agent.rs"), out.join("agent.rs"))?;
        // `include!` resolves a file's modules beside that file; a generated file itself cannot be included,
        // for it begins with inner attributes.
        fs::write(out.join("messages.rs"), "pub mod agent;\n")?;
        for service in [agent, host] {
            fs::write(service.join("service.rs"), "pub mod agent_ttrpc;\n")?;
        }
        Ok(())
    }

    fn generate(directory: &Path, tokio: bool) -> io::Result<PathBuf> {
        fs::create_dir_all(directory)?;
        Codegen::new()
            .out_dir(directory)
            .input("proto/agent.proto")
            .include("proto")
            .rust_protobuf()
            .customize(Customize {
                async_all: tokio,
                ..Customize::default()
            })
            .run()?;
        Ok(directory.to_owned())
    }
}
