//! Containers taken apart and put together again, with times as wanted.

/// A page of an Ogg file (RFC 3533). Packets of the fixtures end on the page they begin on.
#[derive(Debug, Clone)]
pub struct Page {
    pub flags: u8,
    pub granule: i64,
    pub serial: u32,
    pub sequence: u32,
    pub packets: Vec<Vec<u8>>,
}

impl Page {
    pub fn bytes(&self) -> Vec<u8> {
        let lacing: Vec<u8> = self.packets.iter().flat_map(|packet| lacing(packet)).collect();
        page_bytes(self, &lacing, &self.packets.concat())
    }
}

fn lacing(packet: &[u8]) -> Vec<u8> {
    [vec![255; packet.len() / 255], vec![(packet.len() % 255) as u8]].concat()
}

fn page_bytes(page: &Page, lacing: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = b"OggS\0".to_vec();
    bytes.push(page.flags);
    bytes.extend(page.granule.to_le_bytes());
    bytes.extend(page.serial.to_le_bytes());
    bytes.extend(page.sequence.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.push(u8::try_from(lacing.len()).unwrap());
    bytes.extend(lacing);
    bytes.extend(body);
    let checksum = bytes.iter().fold(0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte) << 24, |sum, _| sum << 1 ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    });
    bytes[22..26].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The frames of the FLAC fixture, 1,152 samples each but the last, 96,000 in all, in Ogg (xiph.org/flac/ogg_mapping.html). Pages are of ten segments,
/// so that packets go on from page to page; their positions are multiplied by `scale`.
pub fn ogg_flac(flac: &[u8], scale: i64) -> Vec<u8> {
    let metadata = |at: usize| u32::from_be_bytes(flac[at..at + 4].try_into().unwrap());
    let mut at = 4;
    while metadata(at) >> 31 == 0 {
        at += 4 + (metadata(at) & 0xff_ffff) as usize;
    }
    at += 4 + (metadata(at) & 0xff_ffff) as usize;
    let mut starts = vec![at];
    for next in at + 9..flac.len() - 5 {
        // The same form, the next number.
        if flac[next..next + 2] == flac[at..at + 2]
            && flac[next + 3] == flac[at + 3]
            && flac[next + 4] == starts.len() as u8
        {
            starts.push(next);
        }
    }
    let head = [b"\x7fFLAC\x01\0\0\x01fLaC", &flac[4..42]].concat();
    let comment = [&[0x84, 0, 0, 8][..], &[0; 8]].concat();
    let page =
        |flags: u8, sequence: u32, granule: i64| Page { flags, granule, serial: 9, sequence, packets: Vec::new() };
    let mut file = page_bytes(&page(2, 0, 0), &lacing(&head), &head);
    file.extend(page_bytes(&page(0, 1, 0), &lacing(&comment), &comment));
    let ends = starts[1..].iter().copied().chain([flac.len()]);
    let frames = starts.iter().zip(ends).map(|(from, to)| &flac[*from..to]);
    let segments: Vec<(u8, i64)> =
        frames.zip(1..).flat_map(|(frame, n)| lacing(frame).into_iter().map(move |len| (len, n * 1_152))).collect();
    let (mut at, mut continued) = (at, 0);
    for (segments, sequence) in segments.chunks(10).zip(2..) {
        let lens: Vec<u8> = segments.iter().map(|segment| segment.0).collect();
        let granule =
            segments.iter().rev().find(|segment| segment.0 < 255).map_or(-1, |segment| segment.1.min(96_000) * scale);
        let len: usize = lens.iter().map(|&len| usize::from(len)).sum();
        file.extend(page_bytes(&page(continued, sequence, granule), &lens, &flac[at..at + len]));
        continued = u8::from(lens.last() == Some(&255));
        at += len;
    }
    file
}

pub fn read_ogg(bytes: &[u8]) -> Vec<Page> {
    let (mut pages, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        assert_eq!(&rest[..4], b"OggS");
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (lacing, mut body) = rest[27..].split_at(usize::from(rest[26]));
        let mut packets = vec![Vec::new()];
        for &len in lacing {
            let (part, after) = body.split_at(usize::from(len));
            packets.last_mut().unwrap().extend_from_slice(part);
            body = after;
            if len < 255 {
                packets.push(Vec::new());
            }
        }
        assert_eq!(packets.pop(), Some(Vec::new()), "a packet that goes on");
        let granule = i64::from_le_bytes(rest[6..14].try_into().unwrap());
        pages.push(Page { flags: rest[5], granule, serial: word(14), sequence: word(18), packets });
        rest = body;
    }
    pages
}

pub fn write_ogg(pages: &[Page]) -> Vec<u8> {
    pages.iter().flat_map(Page::bytes).collect()
}

/// Head and packets of sound of an Opus file.
pub fn opus_packets(ogg: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let pages = read_ogg(ogg);
    (pages[0].packets[0].clone(), pages[2..].iter().flat_map(|page| page.packets.clone()).collect())
}

/// Opus packets of 20 ms and the times of their ends, one on each page, as recorders of RTP write them.
pub fn paged_singly(head: &[u8], packets: &[(Vec<u8>, i64)]) -> Vec<Page> {
    let page = |flags: u8, sequence: usize, granule: i64, packet: Vec<u8>| Page {
        flags,
        granule,
        serial: 1,
        sequence: sequence as u32,
        packets: vec![packet],
    };
    let mut pages = vec![page(2, 0, 0, head.to_vec()), page(0, 1, 0, b"OpusTags\0\0\0\0\0\0\0\0".to_vec())];
    pages.extend(packets.iter().enumerate().map(|(n, (packet, end))| page(0, n + 2, *end, packet.clone())));
    pages.last_mut().unwrap().flags = 4;
    pages
}

/// A packet of a track of a Matroska file.
pub struct Timed {
    pub track: u8,
    pub ms: u64,
    pub packet: Vec<u8>,
}

/// Packets 20 ms apart from `ms` on.
pub fn timed(track: u8, ms: u64, packets: &[Vec<u8>]) -> Vec<Timed> {
    packets
        .iter()
        .enumerate()
        .map(|(n, packet)| Timed { track, ms: ms + 20 * n as u64, packet: packet.clone() })
        .collect()
}

fn element(id: u32, body: &[u8]) -> Vec<u8> {
    let id: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
    [&id[..], &(1 << 56 | body.len() as u64).to_be_bytes(), body].concat()
}

/// A WebM file of Opus tracks (RFC 9559), its blocks in the order of time, its duration that of the end.
pub fn matroska(head: &[u8], tracks: u8, mut blocks: Vec<Timed>) -> Vec<u8> {
    blocks.sort_by_key(|block| block.ms);
    let end = blocks.last().map_or(0, |block| block.ms + 20) as f64;
    let info = [
        element(0x2a_d7b1, &1_000_000u32.to_be_bytes()),
        element(0x4489, &end.to_be_bytes()),
        element(0x4d80, b"test"),
        element(0x5741, b"test"),
    ]
    .concat();
    let track = |number: u8| {
        let audio = [element(0xb5, &48_000f64.to_be_bytes()), element(0x9f, &[head[9]])].concat();
        let entry = [
            element(0xd7, &[number]),
            element(0x73c5, &[number]),
            element(0x83, &[2]),
            element(0x86, b"A_OPUS"),
            element(0x63a2, head),
            element(0x56aa, &6_500_000u32.to_be_bytes()),
            element(0xe1, &audio),
        ];
        element(0xae, &entry.concat())
    };
    let mut segment =
        [element(0x1549_a966, &info), element(0x1654_ae6b, &(1..=tracks).flat_map(track).collect::<Vec<_>>())].concat();
    for cluster in blocks.chunk_by(|a, b| a.ms / 5_000 == b.ms / 5_000) {
        let start = cluster[0].ms;
        let mut body = element(0xe7, &start.to_be_bytes());
        for block in cluster {
            let time = ((block.ms - start) as u16).to_be_bytes();
            body.extend(element(0xa3, &[&[0x80 | block.track, time[0], time[1], 0x80], &block.packet[..]].concat()));
        }
        segment.extend(element(0x1f43_b675, &body));
    }
    [element(0x1a45_dfa3, &element(0x4282, b"webm")), element(0x1853_8067, &segment)].concat()
}

fn boxed(name: [u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], &name, body].concat()
}

/// Where the body of a box lies, by the names that lead to it.
fn find(bytes: &[u8], path: &[&[u8; 4]]) -> std::ops::Range<usize> {
    let mut range = 0..bytes.len();
    for name in path {
        let mut at = range.start;
        loop {
            let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            if &bytes[at + 4..at + 8] == *name {
                range = at + 8..at + size;
                break;
            }
            at += size;
            assert!(at < range.end, "no such box");
        }
    }
    range
}

/// An edit of nothing for `ms` in front of the edits of an MP4 whose index is at its end.
pub fn with_empty_edit(mp4: &[u8], ms: u32) -> Vec<u8> {
    let mut bytes = mp4.to_vec();
    let path: [&[u8; 4]; 4] = [b"moov", b"trak", b"edts", b"elst"];
    let elst = find(&bytes, &path);
    for depth in 1..=4 {
        let at = find(mp4, &path[..depth]).start - 8;
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        bytes[at..at + 4].copy_from_slice(&(size + 12).to_be_bytes());
    }
    assert_eq!(bytes[elst.start], 0, "version");
    bytes[elst.start + 7] += 1;
    let entry = [&ms.to_be_bytes()[..], &(-1i32).to_be_bytes(), &[0, 1, 0, 0]].concat();
    bytes.splice(elst.start + 8..elst.start + 8, entry);
    bytes
}

/// The same sound in fragments of 50 frames, the first of which begins at this time (in units of the media).
pub fn fragmented(mp4: &[u8], start: u64) -> Vec<u8> {
    let part = |path: &[&[u8; 4]]| mp4[find(mp4, path)].to_vec();
    let whole = |path: &[&[u8; 4]]| boxed(*path[path.len() - 1], &part(path));
    let stbl: [&[u8; 4]; 5] = [b"moov", b"trak", b"mdia", b"minf", b"stbl"];
    let within = |name: &'static [u8; 4]| [&stbl[..], &[name]].concat();
    let sizes: Vec<usize> = part(&within(b"stsz"))[12..]
        .chunks_exact(4)
        .map(|size| u32::from_be_bytes(size.try_into().unwrap()) as usize)
        .collect();
    let mdat = part(&[b"mdat"]);
    assert_eq!(sizes.iter().sum::<usize>(), mdat.len(), "one track, one run of frames");
    let empty = |name: &[u8; 4], words: usize| boxed(*name, &vec![0; 4 * words]);
    let table = [whole(&within(b"stsd")), empty(b"stts", 2), empty(b"stsc", 2), empty(b"stsz", 3), empty(b"stco", 2)];
    let minf = [
        whole(&[stbl[0], stbl[1], stbl[2], stbl[3], b"smhd"]),
        whole(&[stbl[0], stbl[1], stbl[2], stbl[3], b"dinf"]),
        boxed(*b"stbl", &table.concat()),
    ];
    let mdia = [
        whole(&[b"moov", b"trak", b"mdia", b"mdhd"]),
        whole(&[b"moov", b"trak", b"mdia", b"hdlr"]),
        boxed(*b"minf", &minf.concat()),
    ];
    let trak = [whole(&[b"moov", b"trak", b"tkhd"]), boxed(*b"mdia", &mdia.concat())];
    let word = |n: usize| (n as u32).to_be_bytes().to_vec();
    let trex = boxed(*b"trex", &[word(0), word(1), word(1), word(1024), word(0), word(0)].concat());
    let moov = [whole(&[b"moov", b"mvhd"]), boxed(*b"trak", &trak.concat()), boxed(*b"mvex", &trex)];
    let mut file = [whole(&[b"ftyp"]), boxed(*b"moov", &moov.concat())].concat();
    let (mut at, mut time) = (0, start);
    for (n, sizes) in sizes.chunks(50).enumerate() {
        let moof = |offset: usize| {
            let tfhd = boxed(*b"tfhd", &[word(0x2_0000), word(1)].concat());
            let tfdt = boxed(*b"tfdt", &[word(1 << 24), time.to_be_bytes().to_vec()].concat());
            let trun =
                [word(0x201), word(sizes.len()), word(offset), sizes.iter().flat_map(|size| word(*size)).collect()];
            let traf = [tfhd, tfdt, boxed(*b"trun", &trun.concat())].concat();
            boxed(*b"moof", &[boxed(*b"mfhd", &[word(0), word(n + 1)].concat()), boxed(*b"traf", &traf)].concat())
        };
        let len: usize = sizes.iter().sum();
        file.extend(moof(moof(0).len() + 8));
        file.extend(boxed(*b"mdat", &mdat[at..at + len]));
        at += len;
        time += 1024 * sizes.len() as u64;
    }
    file
}
