//! The sound of a request: from base64 to a mel.

use super::refusal::Refusal;
use crate::data::feed::{Clip, Ears};
use crate::error::Error;
use crate::generate::engine::Given;
use crate::shapes::Seconds;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::Engine;
use std::path::PathBuf;
use std::sync::Arc;

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// What `input_audio.format` may say. What a sound is, its bytes say; the name tells mp3 from the others, as a file's does.
const FORMATS: [&str; 17] = [
    "wav", "wave", "mp3", "flac", "ogg", "oga", "m4a", "mp4", "aac", "aiff", "aif", "aifc", "caf", "au",
    "snd", "mka", "webm",
];
/// Media types of `audio_url`, beside audio/….
const MEDIA: [&str; 5] = [
    "application/octet-stream",
    "application/ogg",
    "video/mp4",
    "video/ogg",
    "video/webm",
];
const MP3: [&str; 4] = ["audio/mpeg", "audio/mp3", "audio/mpga", "audio/x-mp3"];

/// A sound that came in a request.
#[derive(Debug)]
pub(super) struct Sound {
    /// The field that it came in.
    place: String,
    bytes: Arc<[u8]>,
    /// It is read as a file whose name ends in .mp3.
    mp3: bool,
}

impl Sound {
    /// `{"data": base64, "format": …}` at `place`.
    pub(super) fn of_data(place: &str, data: &str, format: &str) -> Result<Self, Refusal> {
        let known = format.to_ascii_lowercase();
        if !FORMATS.contains(&known.as_str()) {
            let expected = format!("one of {}", FORMATS.join(", "));
            let refusal = Refusal::field(format!("{place}.format"), &expected, &shown(format));
            return Err(match known.as_str() {
                "pcm16" | "pcm" => refusal.hint("samples without a header do not say their rate: send wav"),
                _ => refusal,
            });
        }
        Sound::decoded(format!("{place}.data"), data, known == "mp3")
    }

    /// `{"url": "data:audio/…;base64,…"}` at `place`.
    pub(super) fn of_url(place: &str, url: &str) -> Result<Self, Refusal> {
        let place = format!("{place}.url");
        let expected = "a data: URL, such as data:audio/wav;base64,…";
        let Some(rest) = url
            .get(..5)
            .filter(|s| s.eq_ignore_ascii_case("data:"))
            .and(url.get(5..))
        else {
            let scheme = url.split_once(':').map_or("no URL", |(scheme, _)| scheme);
            return Err(Refusal::field(place, expected, &shown(scheme))
                .hint("this server fetches nothing: send the sound itself"));
        };
        let Some((head, data)) = rest.split_once(',') else {
            return Err(Refusal::field(place, expected, "no comma before the data"));
        };
        let mut words = head.split(';').map(|w| w.trim().to_ascii_lowercase());
        let media = words.next().unwrap_or_default();
        if !media.starts_with("audio/") && !MEDIA.contains(&media.as_str()) {
            return Err(Refusal::field(place, "the media type audio/…", &shown(&media)));
        }
        if words.next_back().as_deref() != Some("base64") {
            return Err(Refusal::field(place, expected, "data that is not in base64"));
        }
        Sound::decoded(place, data, MP3.contains(&media.as_str()))
    }

    fn decoded(place: String, data: &str, mp3: bool) -> Result<Self, Refusal> {
        match BASE64.decode(data) {
            Ok(bytes) => Ok(Sound {
                place,
                bytes: bytes.into(),
                mp3,
            }),
            Err(e) => {
                let refusal = Refusal::field(place, "base64", &format!("none: {e}"));
                Err(match data.get(..5) {
                    Some("data:") => refusal.hint("a data: URL goes into audio_url"),
                    _ => refusal,
                })
            }
        }
    }

    /// What a model hears of it: at most `windows` of 10 s from its beginning.
    pub(super) fn heard(self, ears: &Ears, windows: usize) -> Result<Given, Refusal> {
        let clip = Clip::new(PathBuf::from(&self.place), Seconds(0.0), windows);
        let mel = ears.mel_in_memory(&clip, &self.bytes, self.mp3);
        let mel = mel.map_err(|e| match e {
            Error::Audio { .. } => Refusal::of(&e, Some(&self.place)).code("invalid_audio"),
            e => Refusal::of(&e, None),
        })?;
        let kind = if self.mp3 { "mp3" } else { "sound" };
        Ok(Given {
            key: format!("{kind} {}", blake3::hash(&self.bytes).to_hex()),
            mel: Arc::new(mel),
        })
    }
}

/// So much of what a client wrote as fits into a message.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_data_are_decoded_or_named() {
        let good = Sound::of_url("a", "data:audio/mpeg;codecs=mp3;base64,AAEC").unwrap();
        assert_eq!(
            (&*good.bytes, good.mp3, good.place.as_str()),
            (&[0, 1, 2][..], true, "a.url")
        );
        assert!(!Sound::of_data("a", "AAE", "wav").unwrap().mp3);
        for (found, piece) in [
            (Sound::of_url("a", "https://x/y.wav"), "fetches nothing"),
            (Sound::of_url("a", "file:///etc/passwd"), "found \"file\""),
            (Sound::of_url("a", "ä"), "no URL"),
            (Sound::of_url("a", "data:audio/wav;base64"), "no comma"),
            (Sound::of_url("a", "data:audio/wav,abc"), "not in base64"),
            (Sound::of_url("a", "data:text/html;base64,AAAA"), "text/html"),
            (Sound::of_url("a", "data:audio/wav;base64,A*AA"), "offset 1"),
            (
                Sound::of_data("a", "data:audio/wav;base64,AAAA", "wav"),
                "goes into audio_url",
            ),
            (Sound::of_data("a", "AAAA", "pcm16"), "a.format"),
            (Sound::of_data("a", "AAAA", "opus"), "a.format"),
        ] {
            let refusal = found.unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.message.contains(piece), "{piece}: {}", refusal.message);
        }
    }

    #[test]
    fn the_same_bytes_are_the_same_sound() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wavs");
        let wav = BASE64.encode(std::fs::read(format!("{folder}/short_16k_mono_0p2s.wav")).unwrap());
        let ears = Ears::new(0);
        let hear = |format: &str| {
            Sound::of_data("a", &wav, format)
                .unwrap()
                .heard(&ears, 1)
                .unwrap()
        };
        assert_eq!(hear("wav"), hear("flac"));
        assert_ne!(hear("wav"), hear("mp3"), "read in another way");
        let e = Sound::of_data("a", "AAAA", "wav")
            .unwrap()
            .heard(&ears, 1)
            .unwrap_err();
        assert!(e.message.starts_with("a.data: expected"), "{}", e.message);
        assert_eq!((e.status.as_u16(), e.param.as_deref()), (400, Some("a.data")));
    }
}
