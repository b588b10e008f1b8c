//! The table that says what each interrupt number does.
#![allow(
    unsafe_code,
    reason = "KVM's route is a union, of which we set one side"
)]

use std::collections::BTreeMap;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};

use super::KvmError;
use super::vm::Message;
use crate::layout;

/// The I/O APIC's pins under their own numbers, and the messages.
pub(super) fn table(messages: &BTreeMap<u32, Message>) -> Result<KvmIrqRouting, KvmError> {
    let pins = (0..layout::IO_APIC_PINS).map(pin);
    let messages = messages.iter().map(|(number, it)| message(*number, *it));
    let entries: Vec<kvm_irq_routing_entry> = pins.chain(messages).collect();
    KvmIrqRouting::from_entries(&entries)
        .map_err(|_| KvmError::TooMany(entries.len(), "interrupt routes"))
}

fn pin(number: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi: number,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip {
                irqchip: KVM_IRQCHIP_IOAPIC,
                pin: number,
            },
        },
        ..kvm_irq_routing_entry::default()
    }
}

fn message(number: u32, message: Message) -> kvm_irq_routing_entry {
    let mut msi = kvm_irq_routing_msi {
        address_lo: low(message.address),
        address_hi: low(message.address >> 32),
        data: message.data,
        ..kvm_irq_routing_msi::default()
    };
    msi.__bindgen_anon_1.pad = 0;
    kvm_irq_routing_entry {
        gsi: number,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..kvm_irq_routing_entry::default()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn low(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_and_messages_are_in_the_table() {
        let sent = Message {
            address: 0x1_fee0_1000,
            data: 0x41,
        };
        let table = table(&BTreeMap::from([(30, sent)])).unwrap();
        let entries = table.as_slice();
        assert_eq!(entries.len(), 25);
        assert_eq!((entries[4].gsi, entries[24].gsi), (4, 30));
        // SAFETY: the entry's type says that this side of the union was set.
        let msi = unsafe { entries[24].u.msi };
        assert_eq!(
            (msi.address_lo, msi.address_hi, msi.data),
            (0xfee0_1000, 1, 0x41)
        );
    }
}
