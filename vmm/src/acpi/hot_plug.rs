//! The DSDT's part for devices that come and go while the guest runs: an object for each place on the bus,
//! and a method that tells the guest's kernel what happened (ACPI 6.4, 6.3: device insertion, removal).

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Arg, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If,
    Local, Method, Name, Notify, OpRegion, OpRegionSpace, Path, ShiftLeft, Store,
};

use super::bytes;
use crate::layout::port;

/// Places for devices; place 0 is the host bridge's.
const PLACES: std::ops::RangeInclusive<u8> = 1..=31;
/// "Device check": something came (ACPI 6.4, table 5.161).
const DEVICE_CHECK: u8 = 1;
/// "Eject request".
const EJECT_REQUEST: u8 = 3;

/// What the PCI host bridge's object holds for it: registers, places, and the method `PCNT`, which is to
/// be called when the event register's bit is set.
pub(super) fn objects() -> Vec<u8> {
    let mut objects = registers();
    for place in PLACES {
        objects.extend(slot(place));
    }
    objects.extend(eject());
    objects.extend(notify());
    objects
}

fn registers() -> Vec<u8> {
    let region = OpRegion::new(
        Path::new("PCHP"),
        OpRegionSpace::SystemIO,
        &port::PCI_CAME,
        &12_u8,
    );
    let fields = [*b"CAME", *b"SHGO", *b"EJCT"].map(|name| FieldEntry::Named(name, 32));
    let field = Field::new(
        Path::new("PCHP"),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        // Nothing is kept: the whole register is written.
        FieldUpdateRule::WriteAsZeroes,
        fields.into(),
    );
    [bytes(&region), bytes(&field)].concat()
}

/// `_SUN` is its number for the user, `_ADR` its device and function number, `_EJ0` lets go of it.
fn slot(place: u8) -> Vec<u8> {
    let address = u32::from(place) << 16;
    let eject = EjectCall(place);
    bytes(&Device::new(
        name(place),
        vec![
            &Name::new(Path::new("_SUN"), &place),
            &Name::new(Path::new("_ADR"), &address),
            &Method::new(Path::new("_EJ0"), 1, true, vec![&eject]),
        ],
    ))
}

struct EjectCall(u8);

impl Aml for EjectCall {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        acpi_tables::aml::MethodCall::new(Path::new("PCEJ"), vec![&self.0]).to_aml_bytes(sink);
    }
}

/// `PCEJ(place)`: writes the place's bit to the eject register.
fn eject() -> Vec<u8> {
    bytes(&Method::new(
        Path::new("PCEJ"),
        1,
        true,
        vec![
            &ShiftLeft::new(&Local(0), &1_u8, &Arg(0)),
            &Store::new(&Path::new("EJCT"), &Local(0)),
        ],
    ))
}

/// `PCNT()`: reads, and so clears, both registers, and notifies each place concerned. Who goes comes first:
/// a place may be taken again.
fn notify() -> Vec<u8> {
    let gone = checks(Local(0), EJECT_REQUEST);
    let came = checks(Local(1), DEVICE_CHECK);
    let read = [
        bytes(&Store::new(&Local(0), &Path::new("SHGO"))),
        bytes(&Store::new(&Local(1), &Path::new("CAME"))),
    ];
    let body = Raw([read.concat(), gone, came].concat());
    bytes(&Method::new(Path::new("PCNT"), 0, true, vec![&body]))
}

fn checks(places: Local, what: u8) -> Vec<u8> {
    let check = |place: u8| {
        let bit = 1_u32 << place;
        let place = name(place);
        let notify = Notify::new(&place, &what);
        bytes(&If::new(
            &And::new(&Raw(vec![NULL_NAME]), &places, &bit),
            vec![&notify],
        ))
    };
    PLACES.flat_map(check).collect()
}

fn name(place: u8) -> Path {
    Path::new(&format!("S{place:03}"))
}

/// Where a result is not kept (ACPI 6.4, 20.2.2).
const NULL_NAME: u8 = 0;

/// Objects one after another.
pub(super) struct Raw(pub(super) Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}
