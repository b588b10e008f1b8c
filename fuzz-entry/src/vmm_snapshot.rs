//! A snapshot's state, as JSON: a whole machine's, or that of one device's registers, which a function goes on with.

use vmm::pci::Function;
use vmm::snapshot::MachineState;
use vmm::virtio::{Positions, TransportState};

use crate::function::function;

fn registers(state: &TransportState) {
    let (mut function, connected) = function();
    if function.restore(state) {
        // What is restored can be saved, and that restored.
        let positions = Positions::from([(0, 7)]);
        let saved = function.save(&positions);
        let (mut other, others) = self::function();
        assert!(other.restore(&saved), "{saved:?}");
        drop(other);
        assert!(others.is_empty());
    }
    for offset in (0..0x9000).step_by(4) {
        function.read_memory(offset, &mut [0; 4]);
    }
    function.write_memory(20, &[0]);
    drop(function);
    assert!(connected.is_empty(), "{connected:?} stays connected");
}

/// What one input does.
pub fn run(input: &[u8]) {
    if let Ok(state) = serde_json::from_slice::<TransportState>(input) {
        registers(&state);
    }
    if let Ok(machine) = serde_json::from_slice::<MachineState>(input) {
        let written = serde_json::to_string(&machine).unwrap();
        let again: MachineState = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), written);
        for device in &machine.devices {
            registers(&device.transport);
        }
    }
}
