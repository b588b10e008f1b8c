//! Hooks of an OCI specification that run on the host (config.md, "POSIX-platform Hooks").

use std::process::Stdio;
use std::time::Duration;

use oci_spec::runtime::{Hook, State};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{PodError, chain};

/// Bytes of a hook's complaint that go into an error.
const COMPLAINT: usize = 1024;

/// Runs hooks one after the other, each with the container's state on standard input, until one
/// fails.
///
/// # Errors
/// The first failure: a hook that cannot be started, that ends with something else than 0, or that
/// takes longer than its `timeout`.
pub async fn run(kind: &'static str, hooks: &[Hook], state: &State) -> Result<(), PodError> {
    for hook in hooks {
        run_one(hook, state)
            .await
            .map_err(|reason| PodError::Hook {
                kind,
                path: hook.path().clone(),
                reason,
            })?;
    }
    Ok(())
}

/// Runs hooks one after the other, whatever becomes of those before: a failure is logged, as the
/// specification wants it of `poststart` and `poststop` (runtime.md, "Lifecycle").
pub async fn run_all(kind: &'static str, hooks: &[Hook], state: &State) {
    for hook in hooks {
        if let Err(error) = run(kind, std::slice::from_ref(hook), state).await {
            tracing::warn!("{}", chain(&error));
        }
    }
}

async fn run_one(hook: &Hook, state: &State) -> Result<(), String> {
    let state = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().unwrap_or_default().split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    let variables = hook.env().as_deref().unwrap_or_default();
    command.envs(variables.iter().filter_map(|it| it.split_once('=')));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let input = child.stdin.take();
    let ended = async {
        if let Some(mut input) = input {
            // A hook need not read it.
            let _ = input.write_all(&state).await;
        }
        child.wait_with_output().await
    };
    let seconds = hook.timeout().and_then(|it| u64::try_from(it).ok());
    let ended = match seconds {
        Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended)
            .await
            .map_err(|_| format!("not done after {seconds} seconds"))?,
        None => ended.await,
    };
    let output = ended.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = &output.stderr[..output.stderr.len().min(COMPLAINT)];
    let complaint = String::from_utf8_lossy(complaint);
    Err(format!("{}: {}", output.status, complaint.trim()))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::HookBuilder;

    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let arguments = ["sh", "-c", script].map(str::to_owned);
        let mut hook = HookBuilder::default()
            .path("/bin/sh")
            .args(arguments)
            .env(["A=b".to_owned()])
            .build()
            .unwrap();
        hook.set_timeout(timeout);
        hook
    }

    #[tokio::test]
    async fn hooks_get_the_state_and_their_own_environment() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let script = format!("{{ cat; echo; echo $A $HOME; }} > {}", out.display());
        let mut state = State::default();
        state.set_id("c1".to_owned());
        run("poststop", &[shell(&script, None)], &state)
            .await
            .unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        assert!(
            text.contains(r#""id":"c1""#) && text.ends_with("\nb\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_failure_is_told_and_ends_the_row() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let touch = format!("touch {}", out.display());
        let hooks = [shell("echo no way >&2; exit 3", None), shell(&touch, None)];
        let error = run("prestart", &hooks, &State::default())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no way") && text.contains("prestart"),
            "{text}"
        );
        assert!(!out.exists());
        run_all("poststop", &hooks, &State::default()).await;
        assert!(out.exists());
        let slow = [shell("sleep 5", Some(1))];
        let error = run("prestart", &slow, &State::default()).await.unwrap_err();
        assert!(error.to_string().contains("1 seconds"), "{error}");
    }
}
