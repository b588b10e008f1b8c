//! What was counted, as Prometheus text (exposition format 0.0.4).

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use super::Machine;
use super::devices::lock;

/// Text that is being put together.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "# HELP ringside_vmm_{name} {help}");
        let _ = writeln!(self.0, "# TYPE ringside_vmm_{name} {kind}");
    }

    /// Labels' values are names of ours, or checked ones: nothing in them needs a backslash.
    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let _ = match labels.join(",") {
            labels if labels.is_empty() => writeln!(self.0, "ringside_vmm_{name} {value}"),
            labels => writeln!(self.0, "ringside_vmm_{name}{{{labels}}} {value}"),
        };
    }
}

impl Machine<'_> {
    pub(super) fn metrics(&self) -> String {
        let mut text = Text::default();
        let version = env!("CARGO_PKG_VERSION");
        text.family("info", "gauge", "The program's version.");
        text.value("info", &[("version", version)], 1);
        text.family("paused", "gauge", "1 while the machine is paused.");
        text.value("paused", &[], u8::from(self.paused_at.is_some()));
        text.family("memory_bytes", "gauge", "The guest's memory.");
        text.value("memory_bytes", &[], self.vm.memory_size());
        if let Ok(resident) = self.vm.memory().resident() {
            text.family(
                "memory_resident_bytes",
                "gauge",
                "What of it takes room on the host.",
            );
            text.value("memory_resident_bytes", &[], resident);
        }
        if let Some(balloon) = self.devices.balloon() {
            let sizes = [("target", balloon.target()), ("actual", balloon.actual())];
            text.family(
                "balloon_bytes",
                "gauge",
                "What is wanted in the balloon, and what is in it.",
            );
            for (kind, bytes) in sizes {
                text.value("balloon_bytes", &[("kind", kind)], bytes);
            }
            let help = "What the guest gave back, by balloon or by report.";
            text.family("memory_returned_bytes_total", "counter", help);
            text.value("memory_returned_bytes_total", &[], balloon.returned());
        }
        self.exits(&mut text);
        self.device_accesses(&mut text);
        self.device_states(&mut text);
        text.0
    }

    fn exits(&self, text: &mut Text) {
        let help = "How often a processor left the guest to the VMM, by reason.";
        text.family("exits_total", "counter", help);
        for (number, processor) in self.processors.iter().enumerate() {
            let exits = processor.exits();
            for (kind, count) in [
                ("port", &exits.ports),
                ("memory", &exits.memory),
                ("signal", &exits.signals),
                ("other", &exits.others),
            ] {
                let labels = [("cpu", &*number.to_string()), ("kind", kind)];
                text.value("exits_total", &labels, count.load(Ordering::Relaxed));
            }
        }
    }

    /// With a daemon's own count of requests these are exits for each.
    fn device_accesses(&self, text: &mut Text) {
        let help = "Exits for a device's registers, kicks among them.";
        text.family("device_accesses_total", "counter", help);
        for attached in self.devices.iter() {
            let labels = [("device", &*attached.id)];
            text.value("device_accesses_total", &labels, attached.counted().0);
        }
        let help = "Kicks that took the long way through the VMM.";
        text.family("device_kicks_total", "counter", help);
        for attached in self.devices.iter() {
            let labels = [("device", &*attached.id)];
            text.value("device_kicks_total", &labels, attached.counted().1);
        }
    }

    fn device_states(&self, text: &mut Text) {
        let states: Vec<_> = self
            .devices
            .iter()
            .map(|it| {
                let device = lock(&it.device);
                (it.id.clone(), device.kind().word(), device.condition())
            })
            .collect();
        text.family("device_connected", "gauge", "1 while its daemon is there.");
        for (id, kind, condition) in &states {
            let labels = [("device", &**id), ("kind", *kind)];
            text.value("device_connected", &labels, u8::from(condition.connected));
        }
        text.family(
            "device_started",
            "gauge",
            "1 while the guest's driver uses it.",
        );
        for (id, kind, condition) in &states {
            let labels = [("device", &**id), ("kind", *kind)];
            text.value("device_started", &labels, u8::from(condition.started));
        }
        text.family(
            "device_losses_total",
            "counter",
            "How often its daemon was lost.",
        );
        for (id, kind, condition) in &states {
            let labels = [("device", &**id), ("kind", *kind)];
            text.value("device_losses_total", &labels, condition.losses);
        }
    }
}
