//! The answer to `sysinfo(2)`: made of the texts of the files, so that both say the same.

use super::memory::field;

/// `struct sysinfo`, with memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sysinfo {
    uptime: u64,
    /// In 65536ths.
    loads: [u64; 3],
    /// `totalram`, `freeram`, `sharedram`, `bufferram`, `totalswap`, `freeswap`.
    sizes: [u64; 6],
    procs: u16,
}

impl Sysinfo {
    /// Out of the texts of `meminfo`, `loadavg` and `uptime`.
    pub(super) fn of(meminfo: &str, loadavg: &str, uptime: &str) -> Self {
        let number = |word: Option<&str>| word.and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
        let mut words = loadavg.split_whitespace();
        // Never below 0, and the load of a machine fits in.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let mut load = || (number(words.next()) * 65536.0) as u64;
        let loads = [load(), load(), load()];
        let procs = words.next().and_then(|word| word.split_once('/')?.1.parse().ok());
        let up = uptime.split('.').next().and_then(|word| word.parse().ok());
        Self {
            uptime: up.unwrap_or(0),
            loads,
            sizes: ["MemTotal", "MemFree", "Shmem", "Buffers", "SwapTotal", "SwapFree"]
                .map(|name| field(meminfo, name)),
            procs: procs.unwrap_or(u16::MAX),
        }
    }

    /// As the kernel lays it out (`sysinfo(2)`), for a program with words of 32 bits in units of a page.
    pub(super) fn bytes(&self, narrow: bool) -> Vec<u8> {
        let unit: u32 = if narrow { 4096 } else { 1 };
        let mut bytes = Vec::with_capacity(112);
        let word = |bytes: &mut Vec<u8>, value: u64| {
            if narrow {
                let value = u32::try_from(value).unwrap_or(u32::MAX);
                bytes.extend(value.to_ne_bytes());
            } else {
                bytes.extend(value.to_ne_bytes());
            }
        };
        word(&mut bytes, self.uptime);
        self.loads.iter().for_each(|load| word(&mut bytes, *load));
        let sizes = self.sizes.iter().map(|size| size / u64::from(unit));
        sizes.for_each(|size| word(&mut bytes, size));
        bytes.extend(self.procs.to_ne_bytes());
        // Padding: to a word of 32 bits, and on a machine of 64 to one of those.
        bytes.resize(bytes.len() + if narrow { 2 } else { 6 }, 0);
        // `totalhigh`, `freehigh`.
        word(&mut bytes, 0);
        word(&mut bytes, 0);
        bytes.extend(unit.to_ne_bytes());
        bytes.resize(if narrow { 64 } else { 112 }, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal: 65536 kB\nMemFree: 4096 kB\nShmem: 8 kB\nBuffers: 0 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";

    #[test]
    fn the_files_say_the_same() {
        let info = Sysinfo::of(MEMINFO, "0.50 1.00 0.00 2/17 17\n", "12.34 20.00\n");
        assert_eq!((info.uptime, info.loads, info.procs), (12, [32768, 65536, 0], 17));
        assert_eq!(info.sizes, [64 << 20, 4 << 20, 8 << 10, 0, 0, 0]);
    }

    #[test]
    fn it_is_laid_out_for_either_kind_of_program() {
        let info = Sysinfo::of(MEMINFO, "0 0 0 1/3 3", "1.0 1.0");
        let wide = info.bytes(false);
        assert_eq!(wide.len(), 112);
        assert_eq!(wide[32..40], (64_u64 << 20).to_ne_bytes());
        assert_eq!(
            (&wide[80..82], &wide[104..108]),
            (&[3_u8, 0][..], &[1_u8, 0, 0, 0][..])
        );
        let narrow = info.bytes(true);
        assert_eq!(narrow.len(), 64);
        assert_eq!(narrow[16..20], 16384_u32.to_ne_bytes());
        assert_eq!(
            (narrow[40], narrow[52..56].to_vec()),
            (3, 4096_u32.to_ne_bytes().to_vec())
        );
    }
}
