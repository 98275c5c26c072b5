//! Faults, as far as they strike the same in both engines.

use crate::hardware::network::Network;
use crate::machines::machine::Machine;
use crate::record::marks::Marks;
use crate::record::trace::Trace;
use crate::schedule::Fault;

/// Writes down that a fault strikes.
pub fn announce(fault: &Fault, now: u64, trace: &mut Trace, marks: &mut Marks) {
    trace.line(now, None, "fault", format_args!("{fault:?}"));
    if let Some(timeline) = trace.timeline() {
        timeline.fault(now, fault);
    }
    *marks.entry(fault.name()).or_default() += 1;
}

/// What a fault does to the network, and to the disk and the clock of a machine (`machine` finds it
/// by its number). What it does to processes and to the membership is the engine's part.
pub fn strike<'m>(
    fault: &Fault,
    now: u64,
    network: &mut Network,
    machine: impl FnOnce(usize) -> &'m mut Machine,
) {
    match *fault {
        Fault::Partition { ref cut, for_micros } => network.cut(cut.clone(), now + for_micros),
        Fault::SlowNode { slot, by_micros, for_micros } => network.slow(slot, by_micros, now + for_micros),
        Fault::SlowDisk { slot, by_micros, for_micros } => {
            machine(slot).slow_disk = (by_micros, now + for_micros);
        }
        Fault::FailSync { slot } => machine(slot).disk.faults(|faults| faults.fail_sync = true),
        Fault::FailWrite { slot } => machine(slot).disk.faults(|faults| faults.fail_write = true),
        Fault::DiskFull { slot, .. } => machine(slot).disk.faults(|faults| faults.full = true),
        Fault::ClockJump { slot, by_micros } => machine(slot).clock.jump(by_micros),
        _ => {}
    }
}
