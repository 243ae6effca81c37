//! Reading a stretch of a sound file's frames.
//!
//! Decoding is symphonia's: WAV (8 to 32 bit, float, extensible, A-law, µ-law, ADPCM), AIFF, CAF, FLAC, MP3,
//! Ogg Vorbis and AAC of 1 or 2 channels, ALAC, in MP4 and Matroska too. (Its ADPCM differs from libsndfile's by up to
//! 5e-2.) Frames are handed on packet by packet, so that what is held at once does not depend on the length of the file or
//! on what its header claims.

use super::{kind::not_sound, source::Place};
use crate::error::{Error, Result};
use std::{collections::VecDeque, path::Path};
use symphonia::core::{
    codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions},
    errors::Error as Symphonia,
    formats::{FormatReader, SeekMode, SeekTo, TrackType},
    packet::Packet,
    units::Timestamp,
};

/// A lossy stream is cut anywhere: decoding starts this many seconds before the wanted frame.
const LOSSY_RUN_UP: f64 = 0.25;
/// One packet in this many of a lossy stream may be undecodable (and is silence, as in ffmpeg).
const BAD_PACKETS: u64 = 10;

/// A sound file, opened.
pub struct Reader<'p> {
    pub(super) path: &'p Path,
    /// Where its bytes are.
    pub(super) place: Place<'p>,
    pub(super) format: Box<dyn FormatReader>,
    pub(super) decoder: Box<dyn AudioDecoder>,
    pub(super) track: u32,
    /// Samples per second.
    pub rate: u32,
    /// Channels of each frame.
    pub channels: usize,
    /// Frames of the whole file where the container tells. Of an mp3 without a header of its own an estimate.
    pub frames: Option<u64>,
    /// Frames before the sound begins, which are not part of it.
    pub(super) leading: u64,
    /// What timestamps say at the first frame: not 0 in an Ogg stream that was cut out of a longer one.
    pub(super) origin: i64,
    /// Whether it is an .mp3 by its content; in other containers those keep the clock.
    pub(super) mp3: bool,
    /// Where the padding of an mp3 is, in frames, and how much there is.
    pub(super) padding: Option<(u64, u64)>,
    /// Whether the codec keeps every sample: then a missing or broken packet is an error.
    pub(super) lossless: bool,
    /// 16-bit PCM, which most files are: read without the decoder's way over planes of its own, to the same values.
    pub(super) plain_int16: bool,
    /// Whether timestamps count frames, so that seeking finds them.
    pub(super) framewise: bool,
    /// After a seek the position is what the packets say: a decoder that starts anew may give less than a
    /// packet holds (Vorbis gives nothing for its first).
    pub(super) sought: bool,
    /// Packets that were looked at when it was opened.
    pub(super) ahead: VecDeque<Packet>,
}

impl Reader<'_> {
    /// Hands the frames `start..end` (or to the end of the file) to `sink`, interleaved, in blocks; integer
    /// samples become ±1 by their full scale. Returns how many frames there were.
    ///
    /// # Errors
    /// [`Error::Audio`] when a sample is NaN or infinite, when a lossless file ends before its header says or
    /// has a broken packet, when a lossy one has many, or when the rate or the channels change on the way.
    pub fn read(mut self, start: u64, end: u64, mut sink: impl FnMut(&[f64])) -> Result<u64> {
        // From here on counted with what is before the beginning.
        let (start, end) = (
            start.saturating_add(self.leading),
            end.saturating_add(self.leading),
        );
        let mut position = self.seek(start)?;
        let mut block = Vec::new();
        let mut done = 0;
        let (mut packets, mut bad) = (0u64, 0u64);
        while position < end {
            let Some((at, frames, ok)) = self.next(&mut block)? else {
                break;
            };
            position = at.unwrap_or(position);
            if position >= end {
                break;
            }
            packets += 1;
            bad += u64::from(!ok);
            // What of this block lies in start..end.
            let skip = start.saturating_sub(position).min(frames) as usize;
            let stop = (end - position).min(frames) as usize;
            position += frames;
            let Some(wanted) = block.get(skip * self.channels..stop * self.channels) else {
                continue;
            };
            // All of them, without a way out at the first: that runs several at once.
            if !wanted.iter().fold(true, |finite, v| finite & v.is_finite()) {
                return Err(Error::audio(self.path, "finite samples", "NaN or infinity"));
            }
            done += (wanted.len() / self.channels) as u64;
            sink(wanted);
        }
        if bad > 1 + packets / BAD_PACKETS {
            let found = format!("{bad} of {packets} packets that do not decode");
            return Err(Error::audio(self.path, "an intact stream", found).hint("copy or download it again"));
        }
        if let Some(frames) = self.frames.filter(|_| self.lossless) {
            let promised = (frames + self.leading).min(end).saturating_sub(start);
            if done < promised {
                let expected = format!("{promised} frames from frame {start} on, as its header says");
                return Err(
                    Error::audio(self.path, expected, format!("{done}: the file is cut off"))
                        .hint("copy or download it again"),
                );
            }
        }
        Ok(done)
    }

    /// Goes near `start` and returns the frame that comes next: at or before `start`.
    fn seek(&mut self, start: u64) -> Result<u64> {
        let run_up = if self.lossless {
            0.0
        } else {
            LOSSY_RUN_UP * f64::from(self.rate)
        };
        let target = start.saturating_sub(run_up as u64);
        if target == 0 || !self.framewise || self.frames.is_some_and(|n| start >= n + self.leading) {
            return Ok(0);
        }
        let to = SeekTo::Timestamp {
            ts: Timestamp::new(
                i64::try_from(target)
                    .unwrap_or(i64::MAX)
                    .saturating_add(self.origin),
            ),
            track_id: self.track,
        };
        let sought = self.format.seek(SeekMode::Accurate, to);
        match sought.map(|s| self.place(s.actual_ts)) {
            Ok(at) if at <= start => {
                self.decoder.reset();
                self.ahead.clear();
                self.sought = true;
                Ok(at)
            }
            // No index, or past the end: decode from the beginning, which tells how long the file is.
            _ => {
                *self = self.again()?;
                Ok(0)
            }
        }
    }

    /// The next block of frames, interleaved: the first one's place (after a seek), how many they are and
    /// whether they decoded. None at the end.
    fn next(&mut self, block: &mut Vec<f64>) -> Result<Option<(Option<u64>, u64, bool)>> {
        let path = self.path;
        let broken = |e: Symphonia| {
            Error::audio(path, "an intact stream", e.to_string()).hint("copy or download it again")
        };
        let packet = loop {
            if let Some(packet) = self.ahead.pop_front() {
                break packet;
            }
            match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track => break packet,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(Symphonia::ResetRequired) => self.next_stream()?,
                // Some readers tell the end so; a file that ends too early is found by counting.
                Err(Symphonia::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Ok(None)
                }
                Err(e) => return Err(broken(e)),
            }
        };
        let at = self.sought.then(|| self.place(packet.pts));
        if self.plain_int16 {
            block.clear();
            let samples = packet.data.as_chunks::<2>().0;
            block.extend(
                samples
                    .iter()
                    .map(|s| f64::from(i16::from_le_bytes(*s)) / 32768.0),
            );
            return Ok(Some((at, (samples.len() / self.channels) as u64, true)));
        }
        let decoded = match self.decoder.decode(&packet) {
            Ok(decoded) => decoded,
            Err(Symphonia::DecodeError(_)) if !self.lossless => {
                // Timestamps that do not count frames, or absurd ones, give no length to fill.
                let frames = packet.dur.get().min(if self.framewise { 1 << 16 } else { 0 });
                block.clear();
                block.resize(frames as usize * self.channels, 0.0);
                return Ok(Some((at, self.trim(packet.pts, block), false)));
            }
            Err(e) => return Err(broken(e)),
        };
        let spec = decoded.spec();
        if (spec.rate(), spec.channels().count()) != (self.rate, self.channels) {
            let expected = format!("{} Hz and {} channels throughout", self.rate, self.channels);
            let found = format!("{} Hz and {} channels", spec.rate(), spec.channels().count());
            return Err(Error::audio(self.path, expected, found));
        }
        decoded.copy_to_vec_interleaved(block);
        Ok(Some((at, self.trim(packet.pts, block), true)))
    }

    /// The place of a timestamp, counted in frames of a reading from the beginning.
    fn place(&self, at: Timestamp) -> u64 {
        let at = u64::try_from(at.get().saturating_sub(self.origin)).unwrap_or(0);
        match self.padding {
            Some((end, padding)) if at > end => at.saturating_sub(padding).max(end),
            _ => at,
        }
    }

    /// Drops from an mp3's block what its header calls delay and padding; returns how many frames are left. The
    /// decoder library does so as well, but takes whatever follows for padding: what was appended to the file, or,
    /// where there is no header, what is more than an estimate from the first 17 packets.
    fn trim(&self, at: Timestamp, block: &mut Vec<f64>) -> u64 {
        if self.mp3 {
            let place = |frame: u64| {
                let inside = i64::try_from(frame).unwrap_or(i64::MAX).saturating_sub(at.get());
                usize::try_from(inside)
                    .unwrap_or(0)
                    .saturating_mul(self.channels)
                    .min(block.len())
            };
            let delay = place(0);
            let (from, to) = self
                .padding
                .map_or((0, 0), |(end, n)| (place(end), place(end + n)));
            block.drain(from.max(delay)..to.max(delay));
            block.drain(..delay);
        }
        (block.len() / self.channels) as u64
    }

    /// Goes on with the stream that follows in a chain of Ogg streams.
    fn next_stream(&mut self) -> Result<()> {
        let no_sound = || Error::audio(self.path, "an audio track in every part", "none");
        let track = self.format.default_track(TrackType::Audio).ok_or_else(no_sound)?;
        let codec = track.codec_params.as_ref().and_then(|c| c.audio());
        self.decoder = decoder(self.path, codec.ok_or_else(no_sound)?, self.mp3)?;
        self.track = track.id;
        // Its clock starts anew.
        self.sought = false;
        Ok(())
    }
}

pub(super) fn decoder(path: &Path, codec: &AudioCodecParameters, mp3: bool) -> Result<Box<dyn AudioDecoder>> {
    let mut options = AudioDecoderOptions::default();
    // See `Reader::trim`.
    options.gapless = !mp3;
    symphonia::default::get_codecs()
        .make_audio_decoder(codec, &options)
        .map_err(|e| not_sound(path, &e.to_string()))
}
