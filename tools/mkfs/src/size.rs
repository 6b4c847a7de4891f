// SPDX-License-Identifier: GPL-2.0
//! Sizes as people write them.

use crate::Result;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Reads a number of bytes: digits, then perhaps k, M, G, T, P or E (powers of 1024, either case), alone or followed by
/// `iB` or `B`.
pub fn parse(text: &str) -> Result<u64> {
    let wrong = || format!("{text:?} is not a size");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_lowercase();
    let letter = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match letter {
        "" if unit == "ib" => return Err(wrong()),
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        "e" => 60,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is too large"))
}

/// Prints a number of bytes with the largest unit that divides it.
pub fn show(bytes: u64) -> String {
    let units = ["", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"];
    let mut unit = 0;
    let mut number = bytes;
    while number >= 1024 && number % 1024 == 0 && unit + 1 < units.len() {
        number /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{number} B"),
        _ => format!("{number}{}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("4kB", 4096),
            ("7B", 7),
            ("1M", 1 << 20),
            ("2g", 2 << 30),
            ("3T", 3 << 40),
            ("15E", 15 << 60),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "1.5M",
            "4x",
            "4 k",
            "4iB",
            "16E",
            "99999999999999999999",
            "4kk",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(show(4096), "4 KiB");
        assert_eq!(show(1000), "1000 B");
        assert_eq!(show(0), "0 B");
        assert_eq!(show(3 << 40), "3 TiB");
    }
}
