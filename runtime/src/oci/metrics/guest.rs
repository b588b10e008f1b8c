//! What the agent says of itself and its guest.

use ringside_pod::agent::Agent;
use ringside_pod::{VSOCK, chain};

use super::super::state::Entry;
use super::page::Page;

/// Asks it, by a connection that ends with the answer.
pub(super) fn add(first: &Entry, page: &mut Page) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let vsock = first.pod_directory().join(VSOCK);
    let hello = match runtime.map(|runtime| runtime.block_on(Agent::try_connect(&vsock))) {
        Ok(Ok((_, hello))) => hello,
        Ok(Err(error)) => return tracing::warn!("the agent does not answer: {}", chain(&error)),
        Err(error) => return tracing::warn!("cannot ask the agent: {error}"),
    };
    let label = format!(
        "version=\"{}\",kernel=\"{}\"",
        word(&hello.version),
        word(&hello.kernel)
    );
    let help = "The agent's version and the guest's kernel";
    page.add("ringside_agent_info", "gauge", help, &label, "1");
    let uptime = super::microseconds(hello.uptime_us);
    let values = [
        (
            "ringside_agent_anonymous_bytes",
            "The agent's own memory: what only it has",
            hello.agent_anonymous_bytes.to_string(),
        ),
        (
            "ringside_agent_proportional_bytes",
            "The agent's own memory: what it shares in proportion",
            hello.agent_pss_bytes.to_string(),
        ),
        (
            "ringside_guest_memory_bytes",
            "Memory as the guest's kernel has it",
            hello.memory_bytes.to_string(),
        ),
        (
            "ringside_guest_cpus",
            "Processors of the guest",
            hello.cpus.to_string(),
        ),
        (
            "ringside_guest_uptime_seconds",
            "Time since the guest's kernel started",
            uptime,
        ),
    ];
    for (name, help, value) in values {
        page.add(name, "gauge", help, "", &value);
    }
}

/// What the guest says is nobody's but the guest's: nothing of it ends a label.
fn word(text: &str) -> String {
    let allowed = |it: &char| it.is_ascii_alphanumeric() || "._+~-".contains(*it);
    text.chars().filter(allowed).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_one() {
        assert_eq!(word("6.1.0-1\"} 1\nx"), "6.1.0-11x");
        assert_eq!(word(&"a".repeat(1000)).len(), 64);
    }
}
