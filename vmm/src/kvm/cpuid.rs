//! What the guest's processors say of themselves: what KVM supports, with the numbers that differ from
//! processor to processor, one socket of single-threaded cores, and without what this machine does not
//! give (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E).

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::KvmError;

/// What differs between processors and hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Processor {
    /// Its APIC's number.
    pub(super) id: u8,
    /// How many there are.
    pub(super) count: u8,
    /// KVM emulates the APIC timer's deadline mode.
    pub(super) tsc_deadline: bool,
}

impl Processor {
    /// Bits of an APIC number that tell processors apart.
    fn id_bits(self) -> u32 {
        u32::from(self.count).next_power_of_two().trailing_zeros()
    }
}

/// Leaf 1.
mod features {
    pub(super) const ECX_MONITOR: u32 = 1 << 3;
    pub(super) const ECX_VMX: u32 = 1 << 5;
    pub(super) const ECX_PDCM: u32 = 1 << 15;
    pub(super) const ECX_TSC_DEADLINE: u32 = 1 << 24;
    pub(super) const ECX_HYPERVISOR: u32 = 1 << 31;
    pub(super) const EDX_HTT: u32 = 1 << 28;
}
/// Leaf 6: the APIC timer runs in every power state. All else there is the host's own business.
const EAX_ARAT: u32 = 1 << 2;
/// Leaf 0x80000001: nested virtualisation, and performance counters.
const ECX_SVM: u32 = 1 << 2;
const ECX_PERFORMANCE_COUNTERS: u32 = 0b111 << 23 | 1 << 28;
/// Leaf 0xb, ECX bits 8 to 15: what a level is.
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// Leaves that no guest of ours sees: performance monitoring, its AMD extension, nested virtualisation,
/// the host's topology in other forms.
const HIDDEN: [u32; 4] = [0xa, 0x1f, 0x8000_000a, 0x8000_0022];
const TOPOLOGY: u32 = 0xb;

/// The supported leaves, made right for one processor.
pub(super) fn of(supported: &CpuId, processor: Processor) -> Result<CpuId, KvmError> {
    let mut entries = supported.as_slice().to_vec();
    adapt(&mut entries, processor);
    CpuId::from_entries(&entries)
        .map_err(|_| KvmError::TooMany(entries.len(), "processor descriptions"))
}

fn adapt(entries: &mut Vec<kvm_cpuid_entry2>, processor: Processor) {
    let has_topology = entries
        .iter()
        .any(|entry| entry.function == 0 && entry.eax >= TOPOLOGY);
    entries.retain(|entry| entry.function != TOPOLOGY);
    for entry in entries.iter_mut() {
        adapt_entry(entry, processor);
    }
    if has_topology {
        entries.extend(topology(processor));
    }
}

fn adapt_entry(entry: &mut kvm_cpuid_entry2, processor: Processor) {
    let (id, count) = (u32::from(processor.id), u32::from(processor.count));
    match entry.function {
        1 => features(entry, processor),
        4 | 0x8000_001d => caches(entry, processor),
        6 => {
            (entry.ebx, entry.ecx, entry.edx) = (0, 0, 0);
            entry.eax &= EAX_ARAT;
        }
        0x8000_0001 => entry.ecx &= !(ECX_SVM | ECX_PERFORMANCE_COUNTERS),
        // Number of cores and of the bits that tell them apart.
        0x8000_0008 => entry.ecx = (count - 1) | processor.id_bits() << 12,
        // Its own number, its core's number, one node.
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
        hidden if HIDDEN.contains(&hidden) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        _ => {}
    }
}

fn features(entry: &mut kvm_cpuid_entry2, processor: Processor) {
    let (id, count) = (u32::from(processor.id), u32::from(processor.count));
    entry.ebx = (entry.ebx & 0xffff) | count << 16 | id << 24;
    entry.ecx &= !(features::ECX_MONITOR | features::ECX_VMX | features::ECX_PDCM);
    entry.ecx |= features::ECX_HYPERVISOR;
    set(
        &mut entry.ecx,
        features::ECX_TSC_DEADLINE,
        processor.tsc_deadline,
    );
    set(&mut entry.edx, features::EDX_HTT, count > 1);
}

/// The last level is shared by all, the others are each core's own.
fn caches(entry: &mut kvm_cpuid_entry2, processor: Processor) {
    const LAST_LEVEL: u32 = 3;
    /// Bits 14 to 25: processors that share it, less one. Bits 26 to 31, Intel's only: cores, less one.
    const SHARING: u32 = 0xfff << 14;
    const CORES: u32 = 0x3f << 26;
    if entry.eax & 0x1f == 0 {
        return;
    }
    let count = u32::from(processor.count);
    let sharing = if (entry.eax >> 5) & 7 == LAST_LEVEL {
        count - 1
    } else {
        0
    };
    entry.eax = (entry.eax & !SHARING) | sharing << 14;
    if entry.function == 4 {
        entry.eax = (entry.eax & !CORES) | (count - 1).min(0x3f) << 26;
    }
}

fn topology(processor: Processor) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, kind: u32, shift: u32, count: u32| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: index | kind,
        edx: processor.id.into(),
        ..kvm_cpuid_entry2::default()
    };
    [
        level(0, LEVEL_THREAD, 0, 1),
        level(1, LEVEL_CORE, processor.id_bits(), processor.count.into()),
        level(2, 0, 0, 0),
    ]
}

fn set(word: &mut u32, bit: u32, on: bool) {
    if on {
        *word |= bit;
    } else {
        *word &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..kvm_cpuid_entry2::default()
        }
    }

    fn host() -> Vec<kvm_cpuid_entry2> {
        vec![
            leaf(0, 0, [0x1f, 0, 0, 0]),
            leaf(1, 0, [0x606a6, 0xff40_0800, !(1 << 24), 0]),
            // First-level and last-level caches, shared by 2 and 64; then the end of the list.
            leaf(4, 0, [0x21 | 1 << 14 | 31 << 26, 0, 0, 0]),
            leaf(4, 3, [0x63 | 63 << 14 | 31 << 26, 0, 0, 0]),
            leaf(4, 4, [0; 4]),
            leaf(6, 0, [0xff, 2, 9, 3]),
            leaf(0xa, 0, [0x0730_0404, 0, 0, 0x603]),
            leaf(0xb, 0, [1, 2, 0x100, 77]),
            leaf(0x1f, 0, [1, 2, 0x100, 77]),
            leaf(0x8000_0001, 0, [0, 0, u32::MAX, 0]),
            leaf(0x8000_0008, 0, [0x3028, 0, 0x707f, 0]),
            leaf(0x8000_001e, 0, [77, 0x101, 0x300, 0]),
        ]
    }

    fn adapted(id: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
        let mut entries = host();
        let tsc_deadline = true;
        adapt(
            &mut entries,
            Processor {
                id,
                count,
                tsc_deadline,
            },
        );
        entries
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
        let matches =
            |entry: &&kvm_cpuid_entry2| (entry.function, entry.index) == (function, index);
        let mut found = entries.iter().filter(matches);
        let entry = found.next().unwrap();
        assert!(found.next().is_none(), "leaf {function:#x} is there twice");
        [entry.eax, entry.ebx, entry.ecx, entry.edx]
    }

    #[test]
    fn a_processor_knows_its_number_and_its_siblings() {
        let entries = adapted(2, 3);
        assert_eq!(find(&entries, 1, 0)[1], 0x0203_0800);
        assert_eq!(find(&entries, 0xb, 0), [0, 1, 0x100, 2]);
        assert_eq!(find(&entries, 0xb, 1), [2, 3, 0x201, 2]);
        assert_eq!(find(&entries, 0xb, 2), [0, 0, 2, 2]);
        assert_eq!(find(&entries, 0x8000_0008, 0)[2], 0x2002);
        assert_eq!(find(&entries, 0x8000_001e, 0), [2, 2, 0, 0]);
        assert_eq!(
            find(&entries, 1, 0)[3] & features::EDX_HTT,
            features::EDX_HTT
        );
        assert_eq!(find(&adapted(0, 1), 1, 0)[3] & features::EDX_HTT, 0);
        assert_eq!(find(&adapted(0, 1), 0xb, 1)[0], 0);
    }

    #[test]
    fn caches_are_shared_as_the_processors_are() {
        let entries = adapted(0, 4);
        assert_eq!(find(&entries, 4, 0)[0], 0x21 | 3 << 26);
        assert_eq!(find(&entries, 4, 3)[0], 0x63 | 3 << 14 | 3 << 26);
        assert_eq!(find(&entries, 4, 4), [0; 4]);
    }

    #[test]
    fn the_host_keeps_to_itself_what_the_guest_does_not_get() {
        let entries = adapted(0, 2);
        let hidden = features::ECX_MONITOR | features::ECX_VMX | features::ECX_PDCM;
        assert_eq!(find(&entries, 1, 0)[2], !hidden);
        assert_eq!(find(&entries, 6, 0), [4, 0, 0, 0]);
        assert_eq!(find(&entries, 0xa, 0), [0; 4]);
        assert_eq!(find(&entries, 0x1f, 0), [0; 4]);
        assert_eq!(find(&entries, 0x8000_0001, 0)[2] & ECX_SVM, 0);
    }

    #[test]
    fn an_old_processor_gets_no_new_leaf() {
        let mut entries = vec![leaf(0, 0, [5, 0, 0, 0])];
        let processor = Processor {
            id: 0,
            count: 1,
            tsc_deadline: false,
        };
        adapt(&mut entries, processor);
        assert_eq!(entries.len(), 1);
    }
}
