//! Bodies that are no JSON. They are kept in a file without a name while they come and go: no slow client holds up a VPS, and
//! nothing is left of one that is cut off.

use std::fmt::Display;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use condo::error::Error;
use condo::files::{self, NewFile};
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::reply::Problem;
use crate::request::PATIENCE;
use crate::server::Server;

/// Pieces in which a body goes.
const PIECE: usize = 64 << 10;

/// A file to keep a body in.
pub(crate) async fn file(server: &Server) -> Result<File, Problem> {
    server
        .read(|condo| {
            let dir = files::open_dir(condo.folders.lib())?;
            Ok(NewFile::begin(dir.as_fd())?.file.try_clone()?)
        })
        .await
}

/// Reads a body of at most so many bytes. A client that says nothing for long is given up.
pub(crate) async fn take<E: Display>(
    server: &Server,
    mut pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    most: u64,
) -> Result<File, Problem> {
    let mut kept = tokio::fs::File::from_std(file(server).await?);
    let mut size = 0;
    loop {
        let piece = tokio::time::timeout(PATIENCE, pieces.next())
            .await
            .map_err(|_| late())?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|e| Problem::bad(format!("the body cannot be read: {e}")))?;
        size += piece.len() as u64;
        if size > most {
            let text = format!("the body is above the {most} bytes that it may have");
            return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE, &text));
        }
        kept.write_all(&piece).await.map_err(unwritten)?;
    }
    kept.flush().await.map_err(unwritten)?;
    rewound(kept.into_std().await)
}

fn late() -> Problem {
    Problem::of_status(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
}

fn unwritten(e: std::io::Error) -> Problem {
    let e = Error::from(e);
    if e.is_full() {
        let text = "the host's disk has no room for the body";
        return Problem::of_status(StatusCode::INSUFFICIENT_STORAGE, text);
    }
    e.into()
}

/// A file from its beginning on.
pub(crate) fn rewound(mut file: File) -> Result<File, Problem> {
    file.seek(SeekFrom::Start(0)).map_err(Error::from)?;
    Ok(file)
}

/// What was kept, as a body, and its length.
pub(crate) fn give(file: File) -> Result<(Body, u64), Problem> {
    let file = rewound(file)?;
    let size = file.metadata().map_err(Error::from)?.len();
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
    Ok((Body::from_stream(stream), size))
}
