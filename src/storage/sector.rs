//! The smallest unit of the log: a 512-byte sector that says to which life of its file it belongs.
//!
//! A disk writes sectors whole or not at all, and in any order before a sync. So each sector of the
//! log starts with a stamp that depends on this life of the file and on the place. A sector that
//! was not written in this life has another stamp, and so has a sector that was written to the
//! wrong place.

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;
/// The stamp at the start of each sector.
pub(crate) const STAMP_BYTES: usize = 8;
/// What a sector carries beside its stamp.
pub(crate) const SECTOR_PAYLOAD_BYTES: usize = SECTOR_BYTES - STAMP_BYTES;
/// Batches begin on and fill whole blocks, so that a write in flight never shares a block (a page,
/// a physical sector of the disk) with acknowledged bytes.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// What a block carries beside its stamps.
pub(crate) const BLOCK_PAYLOAD_BYTES: usize = BLOCK_BYTES / SECTOR_BYTES * SECTOR_PAYLOAD_BYTES;

/// One use of a segment file, from its header to its end: random, new each time a file is created
/// or recycled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// The number from which the stamps of heads are made. Derived from the number of the life;
    /// kept because each sector needs it.
    heads: u64,
    /// The number from which the stamps of bodies are made.
    bodies: u64,
}

impl Life {
    /// The life with this number.
    pub(crate) const fn new(number: u64) -> Self {
        Self { heads: mix(number ^ 0x5be5_0b8e_c4ad_3f61), bodies: mix(number) }
    }
}

/// Whether a sector starts something (a batch, a segment's header) or continues it. Part of the
/// stamp, so that no client can forge the start of a batch with the bytes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectorPlace {
    /// The first sector of a batch or of a segment's header.
    Head,
    /// Any other.
    Body,
}

/// What a sector turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectorState {
    /// Written in this life.
    Written(SectorPlace),
    /// Not written in this life: zero, or bytes of a former life of the file.
    Unwritten,
    /// Neither: no write of ours, whole or torn, leaves this.
    Garbage,
}

/// Blocks that `payload_bytes` need.
pub(crate) const fn blocks_for(payload_bytes: usize) -> usize {
    payload_bytes.div_ceil(BLOCK_PAYLOAD_BYTES)
}

/// Bytes of file that `payload_bytes` need.
pub(crate) const fn file_bytes_for(payload_bytes: usize) -> usize {
    blocks_for(payload_bytes) * BLOCK_BYTES
}

/// Appends `parts`, one after the other, to `out` as stamped sectors that fill whole blocks. The
/// first sector is a [`SectorPlace::Head`] and goes to byte `offset` of the file.
pub(crate) fn stamp_into(out: &mut Vec<u8>, parts: &[&[u8]], life: Life, offset: u64) {
    let start = out.len();
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut sector = offset / SECTOR_BYTES as u64;
    let mut room = 0;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            if room == 0 {
                push_stamp(out, start, life, &mut sector);
                room = SECTOR_PAYLOAD_BYTES;
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            out.extend_from_slice(now);
            room -= now.len();
            rest = later;
        }
    }
    out.resize(out.len() + room, 0);
    let end = start + file_bytes_for(total);
    while out.len() < end {
        push_stamp(out, start, life, &mut sector);
        out.resize(out.len() + SECTOR_PAYLOAD_BYTES, 0);
    }
}

fn push_stamp(out: &mut Vec<u8>, start: usize, life: Life, sector: &mut u64) {
    let place = if out.len() == start { SectorPlace::Head } else { SectorPlace::Body };
    out.extend_from_slice(&stamp(life, place, *sector).to_le_bytes());
    *sector += 1;
}

/// The payload of whole sectors, without their stamps.
pub(crate) fn unstamp(sectors: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(sectors.len() / SECTOR_BYTES * SECTOR_PAYLOAD_BYTES);
    for sector in sectors.chunks(SECTOR_BYTES) {
        payload.extend_from_slice(sector.get(STAMP_BYTES..).unwrap_or_default());
    }
    payload
}

/// What the sector at byte `offset` of a file is, in its life `life` after its lives `former`.
pub(crate) fn classify(sector: &[u8], offset: u64, life: Life, former: &[Life]) -> SectorState {
    let number = offset / SECTOR_BYTES as u64;
    let Some(found) = sector.first_chunk::<STAMP_BYTES>().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return SectorState::Garbage;
    };
    // No stamp is zero; and most of a segment is fill.
    if found == 0 {
        let is_fill = *sector == [0; SECTOR_BYTES][..sector.len().min(SECTOR_BYTES)];
        return if is_fill { SectorState::Unwritten } else { SectorState::Garbage };
    }
    let of = |life: Life| {
        [SectorPlace::Head, SectorPlace::Body].into_iter().find(|&place| stamp(life, place, number) == found)
    };
    if let Some(place) = of(life) {
        SectorState::Written(place)
    } else if former.iter().any(|&life| of(life).is_some()) {
        SectorState::Unwritten
    } else {
        SectorState::Garbage
    }
}

/// The stamp of a sector: never zero, so that zero fill is never taken for a written sector.
fn stamp(life: Life, place: SectorPlace, sector: u64) -> u64 {
    let from = match place {
        SectorPlace::Head => life.heads,
        SectorPlace::Body => life.bodies,
    };
    mix(from.wrapping_add(sector)).max(1)
}

/// A bijection that spreads every input bit over the whole word (two rounds of multiply and shift).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let value = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    value ^ (value >> 32)
}
