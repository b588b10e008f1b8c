//! Many pods at once.

use crate::containerd::Containerd;

const PODS: usize = 10;

#[test]
fn ten_pods_start_together() {
    let containerd = Containerd::start("shim-ten");
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for number in 0..PODS {
            let containerd = &containerd;
            scope.spawn(move || {
                let id = format!("p{number}");
                let small = ["--annotation", "io.ringside.machine.memory=192M"];
                let script = format!("hostname; echo {number}; exit {number}");
                let ran = containerd.run(&id, &small, &["sh", "-c", &script]);
                assert_eq!(ran.code, i32::try_from(number).unwrap(), "{ran:?}");
                assert!(ran.text().ends_with(&format!("\n{number}\n")), "{ran:?}");
            });
        }
    });
    eprintln!("{PODS} pods in {:?}", began.elapsed());
    containerd.assert_nothing_left();
}
