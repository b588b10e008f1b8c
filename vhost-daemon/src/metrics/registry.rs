//! The metrics of all devices of a daemon as one text.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Metrics, QueueMetrics, Series};

/// The metrics of a daemon's devices, which may come and go.
#[derive(Default)]
pub struct Registry {
    devices: Mutex<Vec<Arc<Metrics>>>,
}

/// A number that every queue has.
struct Column {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    read: fn(&QueueMetrics) -> u64,
}

const fn total(name: &'static str, help: &'static str, read: fn(&QueueMetrics) -> u64) -> Column {
    let kind = "counter";
    Column {
        name,
        kind,
        help,
        read,
    }
}

const COLUMNS: [Column; 8] = [
    total("requests_total", "Requests put into the used ring", |q| {
        q.requests.get()
    }),
    total("bytes_in_total", "Bytes written into guest memory", |q| {
        q.bytes_in.get()
    }),
    total("bytes_out_total", "Bytes taken from guest memory", |q| {
        q.bytes_out.get()
    }),
    total(
        "errors_total",
        "Requests answered with an error or dropped",
        |q| q.errors.get(),
    ),
    total(
        "guest_faults_total",
        "Chains and rings that broke virtio's rules",
        |q| q.guest_faults.get(),
    ),
    total("interrupts_total", "Interrupts sent to the guest", |q| {
        q.interrupts.get()
    }),
    total("wakeups_total", "Sleeps of the queue's thread", |q| {
        q.wakeups.get()
    }),
    Column {
        name: "in_flight",
        kind: "gauge",
        help: "Requests popped and not completed",
        read: |q| q.in_flight.get(),
    },
];

impl Registry {
    /// The metrics of a daemon of one device.
    pub fn of(device: &Arc<Metrics>) -> Self {
        let registry = Self::default();
        registry.add(device.clone());
        registry
    }

    /// Shows a device's metrics from now on.
    pub fn add(&self, device: Arc<Metrics>) {
        self.devices().push(device);
    }

    /// Shows a device's metrics no more.
    pub fn remove(&self, device: &Arc<Metrics>) {
        self.devices().retain(|other| !Arc::ptr_eq(other, device));
    }

    /// Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let devices = self.devices();
        render_queues(&devices, &mut out);
        render_series(&devices, &mut out);
        out
    }

    fn devices(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Metrics>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn render_queues(devices: &[Arc<Metrics>], out: &mut String) {
    let mut queues = Vec::new();
    for device in devices {
        let own = device.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, metrics) in own.iter() {
            let labels = labels(device, &format!("queue=\"{name}\""));
            queues.push((labels, metrics.clone()));
        }
    }
    for Column {
        name,
        kind,
        help,
        read,
    } in COLUMNS
    {
        let _ = writeln!(out, "# HELP ringside_{name} {help}");
        let _ = writeln!(out, "# TYPE ringside_{name} {kind}");
        for (labels, metrics) in &queues {
            let _ = writeln!(out, "ringside_{name}{{{labels}}} {}", read(metrics));
        }
    }
    let name = "ringside_request_seconds";
    let _ = writeln!(out, "# HELP {name} Time from available to used");
    let _ = writeln!(out, "# TYPE {name} histogram");
    for (labels, metrics) in &queues {
        metrics.latency.render(name, labels, out);
    }
}

fn render_series(devices: &[Arc<Metrics>], out: &mut String) {
    let mut rows = Vec::new();
    for device in devices {
        let own = device.series.lock().unwrap_or_else(PoisonError::into_inner);
        for Series {
            name,
            help,
            labels: these,
            counter,
        } in own.iter()
        {
            rows.push((*name, *help, labels(device, these), counter.get()));
        }
    }
    // Stable: within a name the devices' order stays.
    rows.sort_by_key(|row| row.0);
    let mut last = "";
    for (name, help, labels, value) in rows {
        if last != name {
            let _ = writeln!(out, "# HELP ringside_{name} {help}");
            let _ = writeln!(out, "# TYPE ringside_{name} counter");
            last = name;
        }
        let _ = writeln!(out, "ringside_{name}{{{labels}}} {value}");
    }
}

/// The labels of one series: the device's, then its own.
fn labels(device: &Metrics, own: &str) -> String {
    if device.device.is_empty() {
        own.to_owned()
    } else {
        format!("{},{own}", device.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_and_go_away() {
        let (a, b) = (
            Arc::new(Metrics::of_device("disk", "a")),
            Arc::new(Metrics::of_device("disk", "b\"\\")),
        );
        a.queue("0").requests.add(3);
        b.queue("0").requests.add(4);
        for device in [&a, &b] {
            device
                .counter("ops_total", "Operations", "op=\"read\"")
                .add(1);
        }
        let registry = Registry::of(&a);
        registry.add(b);
        let text = registry.render();
        let count = |what: &str| text.matches(what).count();
        assert!(text.contains("ringside_requests_total{disk=\"a\",queue=\"0\"} 3\n"));
        let b = r#"disk="b\"\\""#;
        assert!(text.contains(&format!("ringside_requests_total{{{b},queue=\"0\"}} 4\n")));
        assert!(text.contains(&format!("ringside_ops_total{{{b},op=\"read\"}} 1\n")));
        assert_eq!(count("# TYPE ringside_ops_total"), 1);
        assert_eq!(count("# TYPE ringside_requests_total"), 1);
        registry.remove(&a);
        assert!(!registry.render().contains("disk=\"a\""));
    }
}
