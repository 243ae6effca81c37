//! Opening a sound file of any kind: what it is, by its content, and whether it can be read.

use super::{
    aac,
    decode::{decoder, Reader},
    fmt::Wave,
    headers,
    kind::{self, not_sound},
    mp4::{self, Movie},
    resample::{MAX_RATE, MIN_RATE},
    riff,
    source::{open, Place, Source},
    view::{Body, View},
};
use crate::error::{Error, Result};
use crate::fsutil::{lfs_error, lfs_pointer};
use std::{
    collections::VecDeque,
    io::{Cursor, Seek},
    path::Path,
    sync::{Arc, OnceLock},
};
use symphonia::core::{
    codecs::audio::{well_known as codecs, AudioCodecId},
    formats::{
        probe::{Hint, Probe, ProbeOptions},
        well_known::{FORMAT_ID_ADTS, FORMAT_ID_MP3},
        FormatOptions, FormatReader, TrackType,
    },
    io::{MediaSourceStream, MediaSourceStreamOptions},
    meta::MetadataOptions,
    packet::Packet,
    units::TimeBase,
};

/// More channels than any recording has; a header may say 65,535.
const MAX_CHANNELS: usize = 64;
/// Frames in a packet, for which the decoder library makes room before it sees one. FLAC's longest has 65,535.
const MAX_PACKET_FRAMES: u64 = 1 << 17;
/// Bytes in which a beginning is looked for. Some MP3 files begin with bytes of a cut frame; in a megabyte of anything two
/// frames in a row are found by chance.
const MOST_JUNK: u32 = 1 << 16;
/// Frames of AAC that are looked into, and packets among which they are looked for.
const FRAMES_LOOKED_AT: usize = 4;
const PACKETS_LOOKED_AT: usize = 64;

impl<'p> Reader<'p> {
    /// Opens `path`; the kind of file is found by its content.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or is no regular file; [`Error::Audio`] when it is empty, cut off, not sound,
    /// in a format that is not read, or has a rate outside `MIN_RATE`..=`MAX_RATE` or more than 64 channels.
    pub fn open(path: &'p Path) -> Result<Self> {
        Reader::open_in(path, Place::Named)
    }

    /// [`Reader::open`] of a source's bytes.
    pub(crate) fn open_source(source: &'p Source) -> Result<Self> {
        let place = source.container.as_ref().map_or(Place::Named, Place::Within);
        Reader::open_in(&source.name, place)
    }

    /// [`Reader::open`] of bytes in memory, which messages call `name`.
    pub(super) fn open_bytes(name: &'p Path, bytes: &'p Arc<[u8]>) -> Result<Self> {
        Reader::open_in(name, Place::InMemory(bytes))
    }

    /// The same sound from its beginning.
    pub(super) fn again(&self) -> Result<Self> {
        Reader::open_in(self.path, self.place)
    }

    fn open_in(path: &'p Path, place: Place<'p>) -> Result<Self> {
        let Wave {
            mut view,
            frames: wide,
        } = view(path, place)?;
        let io = |e| Error::io(path, e);
        let movie = mp4::movie(&mut view).map_err(io)?;
        let profile = adts_profile(&mut view).map_err(io)?;
        view.rewind().map_err(io)?;
        let mut format = probe(path, view)?;
        let no_sound = || {
            let found = movie.as_ref().map_or("none".into(), Movie::found);
            Error::audio(path, "an audio track that can be decoded", found)
                .hint("where there is sound, convert it: ffmpeg -i FILE out.wav")
        };
        let track = format
            .default_track(TrackType::Audio)
            .ok_or_else(no_sound)?
            .clone();
        let codec = track
            .codec_params
            .as_ref()
            .and_then(|c| c.audio())
            .ok_or_else(no_sound)?;
        if let Some(name) = unread(codec.codec) {
            return Err(not_sound(path, name));
        }
        let mp3 = format.format_info().format == FORMAT_ID_MP3;
        let mut ahead = VecDeque::new();
        if codec.codec == codecs::CODEC_ID_AAC {
            let adts = format.format_info().format == FORMAT_ID_ADTS;
            let said = codec
                .extra_data
                .as_deref()
                .map(aac::configured)
                .or(profile.filter(|_| adts));
            refuse_aac(path, said)?;
            if said != Some(aac::Kind::OnlyLc) {
                ahead = look_ahead(format.as_mut(), track.id);
                let make = || decoder(path, codec, mp3).ok();
                if ahead.iter().any(|p: &Packet| aac::replicates(&p.data, make)) {
                    refuse_aac(path, Some(aac::Kind::He { stereo: false }))?;
                }
            }
        }
        // MP4 has 16 bits for the rate, and 0 above 65,535 Hz: then the codec's own header tells.
        let opaque = codec.sample_rate.unwrap_or(0) == 0 && codec.codec == codecs::CODEC_ID_AAC;
        let rate = match opaque {
            true => decoder(path, codec, mp3)?.codec_params().sample_rate,
            false => codec.sample_rate,
        }
        .unwrap_or(0);
        if !(MIN_RATE..=MAX_RATE).contains(&rate) {
            let expected = format!("a sample rate from {MIN_RATE} to {MAX_RATE} Hz");
            return Err(Error::audio(path, expected, format!("{rate} Hz")));
        }
        let channels = codec.channels.as_ref().map_or(0, |c| c.count());
        if !(1..=MAX_CHANNELS).contains(&channels) {
            let expected = format!("1 to {MAX_CHANNELS} channels");
            return Err(Error::audio(path, expected, channels.to_string()));
        }
        if codec.codec == codecs::CODEC_ID_VORBIS && channels > 2 {
            // symphonia 0.6.1 undoes the coupling of channels from the first pair to the last; the format wants it
            // from the last to the first. With one pair there is no difference.
            return Err(
                Error::audio(path, "1 or 2 channels in Ogg Vorbis", channels.to_string())
                    .hint("the decoder gets surround sound wrong; convert it: ffmpeg -i FILE out.flac"),
            );
        }
        if let Some(frames) = codec.max_frames_per_packet.filter(|n| *n > MAX_PACKET_FRAMES) {
            let expected = format!("at most {MAX_PACKET_FRAMES} frames in a packet");
            return Err(Error::audio(path, expected, frames.to_string()));
        }
        // The media's clock is the sample rate in nearly every file.
        let leading = movie.and_then(|m| m.beginning).map_or(0, |(ticks, per_second)| {
            u128::from(ticks) * u128::from(rate) / u128::from(per_second.max(1))
        });
        let leading = u64::try_from(leading).unwrap_or(u64::MAX);
        let frames = track.num_frames.filter(|n| *n > 0).or(wide);
        let padding = track.padding.filter(|n| mp3 && *n > 0).map(u64::from);
        let origin = match track.start_ts.get() {
            0 => 0,
            start => start.saturating_add(i64::from(track.delay.unwrap_or(0))),
        };
        let decoder = decoder(path, codec, mp3)?;
        Ok(Reader {
            path,
            track: track.id,
            rate,
            channels,
            frames: frames.map(|n| {
                n.saturating_add_signed(origin.saturating_neg())
                    .saturating_sub(leading)
            }),
            leading,
            origin,
            padding: frames.zip(padding),
            mp3,
            place,
            lossless: lossless(codec.codec),
            plain_int16: codec.codec == codecs::CODEC_ID_PCM_S16LE,
            // ADPCM is left out: symphonia 0.6 multiplies its frames by bytes per block when it seeks.
            framewise: track.time_base.is_some()
                && track.time_base == TimeBase::try_from_recip(rate)
                && !adpcm(codec.codec),
            sought: false,
            ahead,
            decoder,
            format,
        })
    }
}

/// A sound's bytes as the decoder library shall see them.
fn view(path: &Path, place: Place) -> Result<Wave> {
    let container = match place {
        Place::Within(stretch) => &stretch.file,
        Place::Named | Place::InMemory(_) => path,
    };
    let io = |e| Error::io(container, e);
    let (body, size) = match place {
        Place::InMemory(bytes) => (Body::InMemory(Cursor::new(bytes.clone())), bytes.len() as u64),
        Place::Named | Place::Within(_) => {
            let file = open(container)?;
            let size = file.metadata().map_err(io)?.len();
            (Body::OnDisk(file), size)
        }
    };
    let (base, length) = match place {
        Place::Within(stretch) => (stretch.at, stretch.len),
        Place::Named | Place::InMemory(_) => (0, size),
    };
    let Some(end) = base.checked_add(length).filter(|end| *end <= size) else {
        let expected = format!("{length} bytes from byte {base} of {}", container.display());
        return Err(Error::audio(path, expected, format!("a file of {size}")));
    };
    if length == 0 {
        return Err(Error::audio(path, "a sound file", "0 bytes"));
    }
    let mut view = View::new(body, base..end);
    let first = view.bytes_at(0, kind::BEGINNING).map_err(io)?;
    if let Some(says) = lfs_pointer(&first) {
        return Err(lfs_error(path, &says));
    }
    match first.as_slice() {
        [b'N', b'I', b'S', b'T', b'_', b'1', b'A', ..] => headers::sphere(path, view),
        [b'.', b's', b'n', b'd', ..] => headers::au(path, view),
        [b'R', b'I', b'F', b'F', ..] | [b'R', b'F', b'6', b'4', ..] | [b'B', b'W', b'6', b'4', ..]
            if first[4..].get(4..8) == Some(b"WAVE") =>
        {
            riff::open(path, view)
        }
        _ => match kind::refused(&first) {
            Some(refusal) => Err(not_sound(path, &refusal.found).hint(refusal.hint)),
            None => Ok(Wave { view, frames: None }),
        },
    }
}

/// The object type of an ADTS stream, which may begin with an ID3 tag.
fn adts_profile(view: &mut View) -> std::io::Result<Option<aac::Kind>> {
    let tag = view.read_at::<10>(0)?.filter(|t| t.starts_with(b"ID3"));
    let at = tag.map_or(0, |t| {
        10 + t[6..].iter().fold(0, |n, b| n << 7 | u64::from(b & 0x7F))
    });
    Ok(view.read_at::<4>(at)?.and_then(|header| aac::adts(&header)))
}

fn probe(path: &Path, view: View) -> Result<Box<dyn FormatReader>> {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    let probe = PROBE.get_or_init(|| {
        let options = ProbeOptions {
            max_probe_depth: MOST_JUNK,
            ..ProbeOptions::default()
        };
        let mut probe = Probe::new_with_options(&options);
        symphonia::default::register_enabled_formats(&mut probe);
        probe
    });
    let stream = MediaSourceStream::new(Box::new(view), MediaSourceStreamOptions::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    probe
        .probe(&Hint::new(), stream, format, metadata)
        .map_err(|e| not_sound(path, &e.to_string()))
}

/// Refuses AAC that the decoder library would take for what it is not, or not at all.
fn refuse_aac(path: &Path, kind: Option<aac::Kind>) -> Result<()> {
    let Some(name) = kind.and_then(aac::name) else {
        return Ok(());
    };
    let expected = "AAC of low complexity (AAC-LC)";
    Err(Error::audio(path, expected, name).hint("convert it, for example: ffmpeg -i FILE out.wav"))
}

/// The first packets of a track.
fn look_ahead(format: &mut dyn FormatReader, track: u32) -> VecDeque<Packet> {
    let mut ahead = VecDeque::new();
    for _ in 0..PACKETS_LOOKED_AT {
        match format.next_packet() {
            Ok(Some(packet)) if packet.track_id == track => ahead.push_back(packet),
            Ok(Some(_)) => {}
            // What is wrong is met again, or was the end.
            Ok(None) | Err(_) => break,
        }
        if ahead.len() == FRAMES_LOOKED_AT {
            break;
        }
    }
    ahead
}

/// The names of codecs that have no decoder here.
fn unread(codec: AudioCodecId) -> Option<&'static str> {
    Some(match codec {
        codecs::CODEC_ID_OPUS => "Opus",
        codecs::CODEC_ID_SPEEX => "Speex",
        codecs::CODEC_ID_MUSEPACK => "Musepack",
        codecs::CODEC_ID_AC3 => "Dolby AC-3",
        codecs::CODEC_ID_EAC3 => "Dolby E-AC-3",
        codecs::CODEC_ID_AC4 => "Dolby AC-4",
        codecs::CODEC_ID_TRUEHD => "Dolby TrueHD",
        codecs::CODEC_ID_DCA => "DTS",
        codecs::CODEC_ID_WMA => "Windows Media Audio",
        codecs::CODEC_ID_WAVPACK => "WavPack",
        codecs::CODEC_ID_MONKEYS_AUDIO => "Monkey's Audio",
        codecs::CODEC_ID_TTA => "True Audio",
        codecs::CODEC_ID_ATRAC1 | codecs::CODEC_ID_ATRAC3 => "ATRAC",
        codecs::CODEC_ID_RA10 | codecs::CODEC_ID_RA20 | codecs::CODEC_ID_COOK | codecs::CODEC_ID_SIPR => {
            "RealAudio"
        }
        _ => return None,
    })
}

fn lossless(codec: AudioCodecId) -> bool {
    let pcm = codecs::CODEC_ID_PCM_S32LE..=codecs::CODEC_ID_PCM_MULAW;
    pcm.contains(&codec) || [codecs::CODEC_ID_FLAC, codecs::CODEC_ID_ALAC].contains(&codec)
}

fn adpcm(codec: AudioCodecId) -> bool {
    (codecs::CODEC_ID_ADPCM_G722..=codecs::CODEC_ID_ADPCM_IMA_QT).contains(&codec)
}
