//! The compressions of layers: gzip, zstd, or none.
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What a blob holds, told from how it begins: media types have been known to be wrong.
pub(super) fn decompressed<'a>(mut blob: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match blob.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(blob)),
        // A frame, or one to be skipped, with which some tools begin.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Zstd {
            decoder: FrameDecoder::new(),
            blob,
        }),
        _ => Box::new(blob),
    })
}

/// Zstandard frames, one after another, see RFC 8878.
struct Zstd<R> {
    decoder: FrameDecoder,
    blob: R,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame; false at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.blob.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.blob) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut (&mut self.blob).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 {
            if self.decoder.is_finished() {
                if !self.next_frame()? {
                    return Ok(0);
                }
            } else {
                self.decoder
                    .decode_blocks(&mut self.blob, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
        }
        self.decoder.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::read::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn all(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompressed(blob)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn frames_follow_one_another() {
        let text: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let (first, second) = text.split_at(123_456);
        let zstd = |bytes| compress_to_vec(bytes, CompressionLevel::Fastest);
        let skipped = [b"\x53\x2a\x4d\x18\x05\0\0\0notes".as_slice(), &zstd(first)].concat();
        assert_eq!(
            all(&[skipped.clone(), zstd(&[]), zstd(second)].concat()).unwrap(),
            text
        );
        let gzip = |bytes| {
            let mut gzip = Vec::new();
            GzEncoder::new(bytes, Compression::fast())
                .read_to_end(&mut gzip)
                .unwrap();
            gzip
        };
        assert_eq!(all(&[gzip(first), gzip(second)].concat()).unwrap(), text);
        assert_eq!(all(&text).unwrap(), text);
        assert!(all(&[]).unwrap().is_empty());
        assert!(all(skipped.get(..skipped.len() - 9).unwrap()).is_err());
    }
}
