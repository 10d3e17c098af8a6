//! Header blocks: name/value pairs, compressed by one zlib stream for each direction of a connection, with SPDY's
//! dictionary.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::Error;

/// Names and values; names are in lower case.
pub type Headers = Vec<(String, String)>;

/// Maximum bytes of a header block that is not compressed.
pub const MAX_BLOCK: usize = 64 << 10;

const LENGTH_PREFIXED: [&str; 63] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
];

const AFTER: [&str; 2] = ["keep-alive", "origin"];

const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of SPDY/3 header blocks.
fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::with_capacity(1423);
    for word in LENGTH_PREFIXED.iter().chain(&AFTER) {
        dictionary.extend_from_slice(&(word.len() as u32).to_be_bytes());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TEXT.as_bytes());
    dictionary
}

/// Reads the header blocks of one direction of a connection, in their order.
#[derive(Debug)]
pub struct Decompressor {
    zlib: Decompress,
    dictionary: Vec<u8>,
}

impl Default for Decompressor {
    fn default() -> Decompressor {
        Decompressor { zlib: Decompress::new(true), dictionary: dictionary() }
    }
}

impl Decompressor {
    /// Reads one block.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, Error> {
        let plain = self.inflate(block)?;
        parse(&plain).ok_or(Error("a header block is malformed"))
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
            let result = self.zlib.decompress(block, &mut chunk, FlushDecompress::Sync);
            let (read, written) = ((self.zlib.total_in() - read) as usize, (self.zlib.total_out() - written) as usize);
            block = &block[read..];
            plain.extend_from_slice(&chunk[..written]);
            if plain.len() > MAX_BLOCK {
                return Err(Error("a header block is too large"));
            }
            match result {
                Ok(Status::StreamEnd) => return Err(Error("the compressed headers have ended")),
                // Nothing more comes out of this block.
                Ok(Status::Ok | Status::BufError) if read == 0 && written == 0 => {
                    return if block.is_empty() { Ok(plain) } else { Err(Error("a header block is malformed")) };
                }
                Ok(Status::Ok | Status::BufError) => {}
                Err(e) if e.needs_dictionary().is_some() => {
                    let set = self.zlib.set_dictionary(&self.dictionary);
                    set.map_err(|_| Error("the headers are compressed with another dictionary"))?;
                }
                Err(_) => return Err(Error("a header block cannot be decompressed")),
            }
        }
    }
}

/// The names and values of a block; `None` if it is malformed.
fn parse(mut block: &[u8]) -> Option<Headers> {
    fn number(block: &mut &[u8]) -> Option<usize> {
        let (number, rest) = block.split_first_chunk::<4>()?;
        *block = rest;
        Some(u32::from_be_bytes(*number) as usize)
    }
    fn text(block: &mut &[u8]) -> Option<String> {
        let length = number(block)?;
        let (text, rest) = block.split_at_checked(length)?;
        *block = rest;
        String::from_utf8(text.to_vec()).ok()
    }
    let count = number(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block)?;
        headers.push((name.to_ascii_lowercase(), text(&mut block)?));
    }
    block.is_empty().then_some(headers)
}

/// Writes the header blocks of one direction of a connection, in their order.
#[derive(Debug)]
pub struct Compressor {
    zlib: Compress,
}

impl Default for Compressor {
    fn default() -> Compressor {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).expect("a new stream takes a dictionary");
        Compressor { zlib }
    }
}

impl Compressor {
    /// Writes one block.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::new();
        let begin = self.zlib.total_in();
        loop {
            // The vector's spare room is what the compressor may fill.
            block.reserve(plain.len() + 64);
            let done = (self.zlib.total_in() - begin) as usize;
            let compressed = self.zlib.compress_vec(&plain[done..], &mut block, FlushCompress::Sync);
            compressed.expect("memory takes all");
            let all_read = (self.zlib.total_in() - begin) as usize == plain.len();
            if all_read && block.len() < block.capacity() {
                return block;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Compressor, Decompressor, MAX_BLOCK, dictionary};
    use flate2::{Compress, Compression, FlushCompress};

    #[test]
    fn the_dictionary_is_spdys() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        // The Adler-32 checksum that every SPDY/3 connection begins with.
        assert_eq!((b << 16) | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_go_there_and_back_in_their_order() {
        let (mut write, mut read) = (Compressor::default(), Decompressor::default());
        let long = "x".repeat(20_000);
        for headers in [&[("streamtype", "stdin")][..], &[], &[("a", ""), ("", "b"), ("long", &long)]] {
            let block = write.write(headers);
            let got = read.read(&block).unwrap();
            let got: Vec<(&str, &str)> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(got, headers);
        }
    }

    #[test]
    fn blocks_that_are_not_right_are_refused() {
        let check = |plain: &[u8]| {
            let mut zlib = Compress::new(Compression::best(), true);
            let mut block = Vec::with_capacity(plain.len() + 1024);
            zlib.compress_vec(plain, &mut block, FlushCompress::Sync).unwrap();
            Decompressor::default().read(&block).unwrap_err()
        };
        let malformed = "a header block is malformed";
        assert_eq!(check(b"").0, malformed);
        assert_eq!(check(&[0, 0, 0, 1]).0, malformed);
        assert_eq!(check(&[0xff; 8]).0, malformed);
        assert_eq!(check(&[0, 0, 0, 0, 1]).0, malformed);
        assert_eq!(check(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]).0, malformed);
        assert_eq!(check(&vec![0; 100 * MAX_BLOCK]).0, "a header block is too large");
        assert!(Decompressor::default().read(b"not zlib at all").is_err());
    }
}
