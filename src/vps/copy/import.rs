//! A VPS out of archives. All of them are read to their end, below a folder of this command's own, before anything comes into being.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::image::{Image, Manifest, validate_name};
use crate::storage::tree::Direction;
use crate::undo::Undo;
use crate::vps::record::attachment::Attachment;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::Pending;
use crate::vps::record::store::{NewVps, Record};

use super::archive::{Header, Reader, tree_digest};
use super::capture::at;
use super::snapshot::LAYER;

const IMAGE: &str = "image";
/// Archives of one chain: a longer one would rather be a mistake.
const MOST: usize = 1000;

/// What was read of archives and is not a VPS yet.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Its folder: `layer/`, and `image/` where that came along.
    pub(super) dir: PathBuf,
    pub(super) header: Header,
}

impl Condo {
    /// Makes a VPS of an archive, or of a whole one and those with what has changed since, in their order. `-` is standard input.
    ///
    /// Under its old name it keeps its identity, and its address where that is free; under another it is a machine of its own.
    pub fn import(&self, archives: &[PathBuf], name: &Name) -> Result<Record> {
        let by = import_command(archives, name);
        let dir = self.folders.arriving().join(name);
        files::create_dir_all(&self.folders.arriving(), 0o700)?;
        let lock = dir.with_extension("lock");
        let _lock = Lock::now(&lock)?;
        let undo = Undo::of(|| {
            files::remove_tree(&dir)?;
            files::remove_file(&lock)?;
            let _ = std::fs::remove_dir(self.folders.arriving());
            Ok(())
        });
        files::remove_tree(&dir)?;
        self.free_for(name, &by)?;
        let chain = chain(archives)?;
        let mut arrived: Option<Arrived> = None;
        for (at, path) in chain.iter().enumerate() {
            let place = dir.join(at.to_string());
            let read = open(path).and_then(|reader| self.receive(reader, &place, arrived.as_ref()));
            arrived = Some(read.during(|| format!("read `{}`", path.display()))?);
        }
        let arrived = arrived.ok_or_else(|| Error::invalid("FILE", "", "is missing"))?;
        let record = self.settle_in(&arrived, &dir.join("0"), name, by)?;
        undo.run()?;
        Ok(record)
    }

    /// Reads one archive into a new folder.
    pub(super) fn receive<R: Read>(
        &self,
        reader: Reader<R>,
        to: &Path,
        before: Option<&Arrived>,
    ) -> Result<Arrived> {
        let header = reader.header().clone();
        match (&header.since, before.map(|before| &before.header.id)) {
            (Some(since), Some(before)) if since == before => {}
            (None, None) => {}
            (Some(since), _) => {
                let text = "holds only what has changed since the state with this id, which does not come before it; name that archive first";
                return Err(Error::invalid("archive", since, text));
            }
            (None, Some(_)) => {
                let problem = "is a whole one, and comes after another";
                return Err(Error::invalid("archive", &header.id, problem));
            }
        }
        if let Some(before) = before
            && before.header.image.digest != header.image.digest
        {
            return Err(Error::invalid(
                "archive",
                &header.id,
                "stands on another image than those before it",
            ));
        }
        validate_name(&header.config.image)?;
        let layer = to.join(LAYER);
        files::create_dir_all(&layer, 0o700)?;
        let image = to.join(IMAGE);
        let image = match header.image.included {
            true => {
                files::create_dir_all(&image, 0o700)?;
                Some(at(&image)?)
            }
            false => None,
        };
        let base = before.map(|before| at(&before.dir.join(LAYER))).transpose()?;
        reader.unpack(image.as_ref(), &at(&layer)?, base.as_ref())?;
        if let Some(image) = &image
            && tree_digest(image)? != header.image.digest
        {
            return Err(Error::Corrupt("the archive's image is not what it says".into()));
        }
        rustix::fs::syncfs(at(&layer)?)?;
        Ok(Arrived {
            dir: to.to_owned(),
            header,
        })
    }

    /// Refuses a name that is taken, before anything is read; what a killed import of the same has left goes.
    fn free_for(&self, name: &Name, by: &str) -> Result<()> {
        match self.store.get_any(name) {
            Err(e) if e.is_gone() => Ok(()),
            Ok(record) => match &record.config.pending {
                Some(Pending::Arriving { by: other }) if other == by => self.delete(name, true),
                _ => Err(Error::Exists {
                    kind: "VPS",
                    name: name.to_string(),
                }),
            },
            Err(e) => Err(e),
        }
    }

    /// Makes a VPS of what has arrived whole. `first` is the folder of the archive that may have brought the image.
    fn settle_in(&self, arrived: &Arrived, first: &Path, name: &Name, by: String) -> Result<Record> {
        let record = self.make_room(arrived, first, name, by)?;
        let fill = || -> Result<()> {
            let _copies = self.lock_copies(name)?;
            self.bring(&record, &at(&arrived.dir.join(LAYER))?, Direction::Copy)?;
            if *name == arrived.header.name && arrived.header.started {
                files::write_atomic(&self.folders.seat(name).provisioned(), b"", 0o600)?;
            }
            Ok(())
        };
        fill().inspect_err(|_| {
            if let Err(e) = self.delete(name, true) {
                log::warn!("{e}");
            }
        })?;
        self.settled(name)
    }

    /// A new VPS as an archive describes it, whose disk is not filled yet, and its image.
    pub(super) fn make_room(
        &self,
        arrived: &Arrived,
        first: &Path,
        name: &Name,
        by: String,
    ) -> Result<Record> {
        let header = &arrived.header;
        self.must_be_alike(&header.config.disk, "a VPS of an archive")?;
        let image = self.image_for(header, &first.join(IMAGE))?;
        let same = *name == header.name;
        let config = VpsConfig {
            image: image.name,
            hostname: header.config.hostname.clone().filter(|_| same),
            ip: None,
            allow: Default::default(),
            networks: self.networks_for(&header.config),
            arrived: None,
            rescue: None,
            publish: if same {
                header.config.publish.clone()
            } else {
                Default::default()
            },
            pending: Some(Pending::Arriving { by }),
            ..header.config.clone()
        };
        self.create_at(name, &config, header, same)
    }

    /// With its old address, if it comes back and can have that.
    fn create_at(&self, name: &Name, config: &VpsConfig, header: &Header, same: bool) -> Result<Record> {
        let new = |wanted_ip| NewVps {
            name: name.clone(),
            wanted_ip,
            config: config.clone(),
            first_boot: Default::default(),
        };
        if same {
            match self.create(new(Some(header.address))) {
                Err(e)
                    if matches!(
                        e.root(),
                        Error::Exists { kind: "address", .. } | Error::Invalid { .. }
                    ) => {}
                other => return other,
            }
        }
        self.create(new(None))
    }

    /// The networks that a copy can be on: those that there are here, with no address or name there that is another's.
    pub(super) fn networks_for(&self, config: &VpsConfig) -> Vec<Attachment> {
        let here = |wanted: &&Attachment| self.store.network(&wanted.network).is_ok();
        let networks = config.networks.iter().filter(here);
        networks
            .map(|wanted| Attachment::to(wanted.network.clone()))
            .collect()
    }

    /// The image that is here and has these files, by its name or the one that it got when another had that.
    pub(super) fn image_here(&self, wanted: &str, digest: &str) -> Result<Option<Image>> {
        let images = self.images();
        for name in [wanted, &another(wanted, digest)] {
            if images.exists(name) {
                let image = images.get(name)?;
                if tree_digest(&image.tree()?)? == digest {
                    return Ok(Some(image));
                }
            }
        }
        Ok(None)
    }

    /// The image with these files: one that is here, or the one that came along.
    fn image_for(&self, header: &Header, arrived: &Path) -> Result<Image> {
        let wanted = &header.config.image;
        let images = self.images();
        if let Some(image) = self.image_here(wanted, &header.image.digest)? {
            return Ok(image);
        }
        if !header.image.included && !files::exists(arrived) {
            let text = format!(
                "the archive stands on the image `{wanted}` with the digest {}, which is not here and did not come along: import that image first, or \
                 export without `--without-image`",
                header.image.digest
            );
            return Err(Error::Status(text));
        }
        let manifest: Manifest = serde_json::from_value(header.image.manifest.clone())
            .during(|| "read what the archive says of its image")?;
        let name = match images.exists(wanted) {
            true => &another(wanted, &header.image.digest),
            false => wanted,
        };
        images.adopt(name, manifest, arrived)
    }
}

/// What an image is called where another has its name.
fn another(wanted: &str, digest: &str) -> String {
    format!("{wanted}-{}", digest.get(..12).unwrap_or_default())
}

/// The command, for whoever has to run it again.
fn import_command(archives: &[PathBuf], name: &Name) -> String {
    let paths: Vec<_> = archives.iter().map(|path| path.display().to_string()).collect();
    format!("condo import {} --name {name}", paths.join(" "))
}

/// The archives to read, a whole one first. One that has only changes is completed by those beside it.
fn chain(archives: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let [only] = archives else {
        return Ok(archives.to_vec());
    };
    if only == Path::new("-") {
        return Ok(archives.to_vec());
    }
    let mut chain = vec![only.clone()];
    let mut header = header_of(only).during(|| format!("read `{}`", only.display()))?;
    while let Some(since) = &header.since {
        if chain.len() > MOST {
            return Err(Error::invalid(
                "FILE",
                only.display(),
                "has too many archives before it",
            ));
        }
        let (path, earlier) = beside(only, since)?;
        chain.push(path);
        header = earlier;
    }
    chain.reverse();
    Ok(chain)
}

/// The archive in the same folder that holds a state.
fn beside(path: &Path, id: &str) -> Result<(PathBuf, Header)> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    for entry in std::fs::read_dir(dir).during(|| format!("read `{}`", dir.display()))? {
        let path = entry?.path();
        if path.is_file()
            && let Ok(header) = header_of(&path)
            && header.id == id
        {
            return Ok((path, header));
        }
    }
    let problem = format!(
        "holds only what has changed since the state {id}, which no archive in `{}` holds; name the archives in their order",
        dir.display()
    );
    Err(Error::invalid("FILE", path.display(), problem))
}

/// What an archive says of itself.
pub(super) fn header_of(path: &Path) -> Result<Header> {
    Ok(open(path)?.header().clone())
}

fn open(path: &Path) -> Result<Reader<Box<dyn Read>>> {
    if path == Path::new("-") {
        return Reader::open(Box::new(std::io::stdin()));
    }
    let file = File::open(path).during(|| format!("open `{}`", path.display()))?;
    if file.metadata()?.is_dir() {
        return Err(Error::invalid("FILE", path.display(), "is a directory"));
    }
    Reader::open(Box::new(file))
}
