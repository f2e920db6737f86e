//! The commands of `condo image`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::vps::pull::{self, PullArgs};

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(in crate::cli::vps) enum ImageCommand {
    /// Build an image from a recipe.
    #[command(
        after_help = "Examples:\n  condo image build images/busybox\n  condo image build images/debian-12 --name base"
    )]
    Build {
        /// The recipe's directory.
        recipe: PathBuf,
        /// The image's name, if not the recipe's.
        #[arg(short, long, value_name = "IMAGE")]
        name: Option<String>,
    },
    /// Make an image of one in a registry.
    #[command(after_help = pull::EXAMPLES)]
    Pull(PullArgs),
    /// Make an image of an archive: a root filesystem, an OCI layout or of `docker save`; plain, gzip, zstd or xz.
    #[command(
        after_help = "Examples:\n  condo image import alpine-minirootfs.tar.gz --name alpine --init /sbin/init\n  \
                      docker export box | condo image import - --name box\n  \
                      docker save app | condo image import - --name app"
    )]
    Import {
        /// The archive, or the directory of an OCI layout; `-` for standard input.
        archive: PathBuf,
        /// The image's name.
        #[arg(short, long, value_name = "IMAGE")]
        name: String,
        /// The program to run as PID 1, if it is not found by itself; several times for its arguments.
        #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
        init: Vec<String>,
        /// The signal that asks its init to shut down, if it is not found by itself.
        #[arg(long, value_name = "SIGNAL")]
        stop_signal: Option<String>,
    },
    /// List all images.
    List {
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show one image.
    Show {
        /// The image.
        #[arg(value_name = "IMAGE")]
        name: String,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Remove images that no VPS is based on.
    Remove {
        /// The images.
        #[arg(value_name = "IMAGE", required = true)]
        names: Vec<String>,
    },
    /// Remove layers that no image needs, and what interrupted pulls and imports left.
    #[command(after_help = "Examples:\n  condo image prune\n  condo image prune --all")]
    Prune {
        /// Also images that no VPS is based on.
        #[arg(short, long)]
        all: bool,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
}
