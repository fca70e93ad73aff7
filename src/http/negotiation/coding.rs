//! Content codings: which one a client gets, by `Accept-Encoding` (RFC 9110, section 12.5.3), and the compression.

use std::io::{self, Write};

use axum::http::{HeaderMap, header};
use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, write::GzEncoder};

use super::weighted::members;
use crate::{
    chain::words,
    protocol::{Code, Failure},
};

/// Shorter bodies, in bytes, are sent as they are: they fit one packet either way.
const MIN_BYTES: usize = 1024;

/// Levels at which another step of effort saves a few percent and takes twice the time.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: i32 = 5;
const GZIP_LEVEL: u32 = 6;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Br,
    /// Gzip.
    Gzip,
}

// The one first that is taken when the client likes several as much: zstd takes the least time at both ends.
words!(Coding { Zstd = "zstd", Br = "br", Gzip = "gzip" | "x-gzip" });

impl Coding {
    /// Compresses a whole body.
    ///
    /// # Errors
    /// The library's; there is none for a body in memory.
    pub(in crate::http) fn compress(self, body: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
            Self::Br => {
                let parameters =
                    BrotliEncoderParams { quality: BROTLI_QUALITY, size_hint: body.len(), ..Default::default() };
                let mut out = Vec::with_capacity(body.len() / 4);
                brotli::BrotliCompress(&mut &*body, &mut out, &parameters)?;
                Ok(out)
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(GZIP_LEVEL));
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// The codings that a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codings {
    /// The one that it likes best; `None`: it rather has a body as it is.
    best: Option<Coding>,
    /// Whether it does not accept a body as it is.
    needs_coding: bool,
}

impl Codings {
    /// What a client accepts by its headers. Without `Accept-Encoding` that is a body as it is.
    ///
    /// # Errors
    /// [`Code::NotAcceptable`] if it accepts neither a body as it is nor any coding of ours.
    pub(in crate::http) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let (mut weights, mut identity, mut others) = ([None; Coding::ALL.len()], None, None);
        for (member, weight) in members(headers, header::ACCEPT_ENCODING) {
            let slot = match &*member {
                "identity" => &mut identity,
                "*" => &mut others,
                name => match name.parse::<Coding>() {
                    Ok(coding) => &mut weights[coding as usize],
                    Err(_) => continue,
                },
            };
            slot.get_or_insert(weight);
        }
        let mut best: Option<(Coding, f32)> = None;
        for (coding, weight) in Coding::ALL.into_iter().zip(weights) {
            let weight = weight.or(others).unwrap_or(0.0);
            if weight > 0.0 && best.is_none_or(|(_, best)| weight > best) {
                best = Some((coding, weight));
            }
        }
        let needs_coding = identity.or(others) == Some(0.0);
        // Unless it is named, the body as it is comes after every coding that is.
        let best = best.filter(|(_, weight)| identity.is_none_or(|identity| *weight >= identity));
        if needs_coding && best.is_none() {
            let detail =
                format!("this is answered with the codings identity, {}", Coding::ALL.map(Coding::as_str).join(", "));
            return Err(Failure::with_detail(Code::NotAcceptable, detail));
        }
        Ok(Self { best: best.map(|(coding, _)| coding), needs_coding })
    }

    /// The coding for a body of so many bytes, `None` if that is unknown.
    pub(in crate::http) fn choose(self, bytes: Option<usize>) -> Option<Coding> {
        self.best.filter(|_| self.needs_coding || bytes.is_none_or(|bytes| bytes >= MIN_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    fn accepted(lines: &[&str]) -> Result<Codings, Failure> {
        let line = |line: &&str| (header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        Codings::of(&lines.iter().map(line).collect())
    }

    #[rstest]
    #[case::none(&[], None)]
    #[case::empty(&[""], None)]
    #[case::browser(&["gzip, deflate, br, zstd"], Some(Coding::Zstd))]
    #[case::older_browser(&["gzip, deflate, br"], Some(Coding::Br))]
    #[case::gzip_alone(&["GZip"], Some(Coding::Gzip))]
    #[case::old_name(&["x-gzip"], Some(Coding::Gzip))]
    #[case::unknown(&["deflate, compress"], None)]
    #[case::weights(&["zstd;q=0.1, br;q=0.5, gzip;q=0.9"], Some(Coding::Gzip))]
    #[case::refused(&["zstd;q=0, *"], Some(Coding::Br))]
    #[case::any(&["*"], Some(Coding::Zstd))]
    #[case::rather_as_it_is(&["gzip;q=0.5, identity"], None)]
    #[case::as_much(&["identity, gzip"], Some(Coding::Gzip))]
    #[case::hardly(&["gzip;q=0.001"], Some(Coding::Gzip))]
    #[case::never(&["gzip;q=0"], None)]
    #[case::lines(&["deflate", "br"], Some(Coding::Br))]
    #[case::no_weight(&["gzip;q=2, br;q=x"], None)]
    #[case::nothing_but_gzip(&["identity;q=0, gzip"], Some(Coding::Gzip))]
    #[case::nothing_else(&["*;q=0, br"], Some(Coding::Br))]
    fn the_coding_is_negotiated(#[case] lines: &[&str], #[case] expected: Option<Coding>) {
        assert_eq!(accepted(lines).unwrap().choose(None), expected);
        assert_eq!(accepted(lines).unwrap().choose(Some(MIN_BYTES)), expected);
    }

    #[test]
    fn a_short_body_is_sent_as_it_is_if_the_client_takes_it() {
        let choose = |line| accepted(&[line]).unwrap().choose(Some(MIN_BYTES - 1));
        assert_eq!(choose("gzip, br"), None);
        assert_eq!(choose("gzip, identity;q=0.1"), None);
        assert_eq!(choose("gzip, identity;q=0"), Some(Coding::Gzip));
        assert_eq!(choose("gzip, *;q=0"), Some(Coding::Gzip));
        assert_eq!(choose("gzip, *;q=0, identity;q=0.5"), None);
    }

    #[test]
    fn a_client_that_accepts_nothing_of_ours_is_refused() {
        for line in ["identity;q=0", "*;q=0", "deflate, *;q=0", "identity;q=0, gzip;q=0"] {
            let failure = accepted(&[line]).unwrap_err();
            assert_eq!(failure.code, Code::NotAcceptable, "{line}");
            assert!(failure.detail.unwrap().ends_with("identity, zstd, br, gzip"), "{line}");
        }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let text = r#"{"hash":"0098469404e2f8e97f63bf0585b74495586e49001b7c00428b71a22d64a698f8"}"#.repeat(100);
        for body in [text.as_bytes(), b"", &[0xff; 3]] {
            for coding in Coding::ALL {
                let compressed = coding.compress(body).unwrap();
                let mut back = Vec::new();
                match coding {
                    Coding::Zstd => back = zstd::decode_all(&compressed[..]).unwrap(),
                    Coding::Br => brotli::BrotliDecompress(&mut &compressed[..], &mut back).unwrap(),
                    Coding::Gzip => {
                        io::copy(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut back).unwrap();
                    }
                }
                assert_eq!(back, body, "{coding}");
                assert!(body.len() < MIN_BYTES || compressed.len() < body.len() / 10, "{coding}");
            }
        }
    }
}
