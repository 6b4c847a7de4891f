// SPDX-License-Identifier: GPL-2.0
//! Compressed disk images, held in memory without their holes.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

const CHUNK: usize = 4096;

/// A device.
pub struct Image {
    pub name: String,
    chunks: HashMap<u64, Box<[u8]>>,
}

impl Image {
    pub fn open(path: &Path) -> Image {
        let file = std::fs::File::open(path).unwrap();
        let mut stream =
            ruzstd::decoding::StreamingDecoder::new(std::io::BufReader::new(file)).unwrap();
        let mut chunks = HashMap::new();
        let mut buf = vec![0; CHUNK];
        for i in 0.. {
            let mut have = 0;
            while have < CHUNK {
                match stream.read(&mut buf[have..]).unwrap() {
                    0 => break,
                    n => have += n,
                }
            }
            if have == 0 {
                break;
            }
            buf[have..].fill(0);
            if buf.iter().any(|b| *b != 0) {
                chunks.insert(i, buf.clone().into_boxed_slice());
            }
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Image { name, chunks }
    }

    /// One of the images kept beside the tests.
    pub fn fixture(name: &str) -> Image {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
        Image::open(&dir.join(format!("{name}.img.zst")))
    }

    /// `nr` sectors from `sector`, as words.
    pub fn read(&self, sector: u64, nr: usize) -> Vec<u64> {
        let mut bytes = vec![0u8; nr * 512];
        for (i, out) in bytes.chunks_exact_mut(512).enumerate() {
            let at = (sector + i as u64) * 512;
            if let Some(chunk) = self.chunks.get(&(at / CHUNK as u64)) {
                let start = (at % CHUNK as u64) as usize;
                out.copy_from_slice(&chunk[start..start + 512]);
            }
        }
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
        bytes.chunks_exact(8).map(word).collect()
    }
}

/// More images to read, from the directory `BCACHEFS_FORMAT_IMAGES`; none if that is not set.
pub fn more_images() -> Vec<PathBuf> {
    let Some(dir) = std::env::var_os("BCACHEFS_FORMAT_IMAGES") else {
        return Vec::new();
    };
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_string_lossy().ends_with(".img.zst"))
        .collect();
    paths.sort();
    paths
}
