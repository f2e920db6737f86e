//! Images from a registry on the loopback.

use std::fs;

use anyhow::{Result, ensure};
use condo::error::Error;
use condo::image::registry::{Credentials, PullOptions, Reference, Settings};
use condo::image::{Image, Images};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::layers::view;
use super::saved::{self, Packed, Saved};
use super::server::{Manners, Registry, Wants};
use super::{Scratch, Tar};

tests![
    an_image_is_pulled_and_its_layers_are_shared,
    an_interrupted_pull_goes_on,
    registries_are_told_who_we_are,
    a_registry_has_to_prove_who_it_is,
    mirrors_come_first,
    what_a_registry_exchanges_is_refused,
];

/// `user:secret`.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

/// A network of this test's own, with a loopback and nothing else.
pub(super) fn alone() -> Result<Scratch> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    condo::sys::interface::set_loopback_up()?;
    Ok(Scratch::new())
}

fn insecure() -> PullOptions {
    PullOptions {
        insecure: true,
        ..PullOptions::default()
    }
}

fn pull(
    images: &Images,
    registry: &Registry,
    path: &str,
    name: &str,
    options: &PullOptions,
) -> condo::error::Result<Image> {
    let reference = Reference::parse(&format!("{}/{path}", registry.address))?;
    images.pull(&reference, name, options, &|_| {})
}

/// A layer that is longer than a buffer and does not compress.
fn long() -> Result<Saved> {
    let mut noise = Vec::new();
    let mut state = 1_u64;
    while noise.len() < 300_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&state.to_le_bytes());
    }
    let layer = Tar::system().file("noise", 0o644, &noise).end();
    Saved::new(&json!({}), &[(layer, Packed::Zstd)])
}

fn an_image_is_pulled_and_its_layers_are_shared() -> Result<()> {
    needs!(root);
    let scratch = alone()?;
    let images = scratch.images();
    let three = saved::three_layers()?;
    let registry = Registry::start(
        &[("team/app", &three, false), ("copy", &three, true)],
        Manners::default(),
    )?;
    let image = pull(&images, &registry, "team/app", "app", &insecure())?;
    ensure!(image.manifest.source.ends_with("/team/app:latest") && image.layers.len() == 3);
    super::layers::check_tree(&view(&image)?.path)?;
    let sent = registry.sent().len();
    ensure!(sent > 0);

    // The same again is nothing to do, and the same layers under another name nothing to download.
    ensure!(pull(&images, &registry, "team/app", "app", &insecure())?.manifest == image.manifest);
    ensure!(pull(&images, &registry, "copy", "copy", &insecure())?.layers == image.layers);
    ensure!(registry.sent().len() == sent, "{:?}", registry.sent());
    ensure!(
        fs::read_dir(scratch.0.join("images/.blobs"))?.next().is_none(),
        "what is unpacked is not kept"
    );

    let other = pull(&images, &registry, "copy", "app", &insecure()).unwrap_err();
    ensure!(matches!(other.root(), Error::Exists { .. }), "{other}");
    let missing = pull(&images, &registry, "nothing", "x", &insecure()).unwrap_err();
    ensure!(missing.to_string().contains("manifest unknown"), "{missing}");
    // Two at once do the work once.
    for name in ["app", "copy"] {
        images.remove(name)?;
    }
    images.prune()?;
    let before = registry.sent().len();
    std::thread::scope(|scope| {
        let both = [("a", "copy"), ("b", "team/app")].map(|(name, path)| {
            let (images, registry) = (&images, &registry);
            scope.spawn(move || pull(images, registry, path, name, &insecure()).map(drop))
        });
        both.into_iter().try_for_each(|one| one.join().unwrap_or(Ok(())))
    })?;
    ensure!(images.get("a")?.layers == images.get("b")?.layers);
    ensure!(registry.sent().len() - before == sent, "{:?}", registry.sent());
    Ok(())
}

fn an_interrupted_pull_goes_on() -> Result<()> {
    needs!(root);
    let scratch = alone()?;
    let images = scratch.images();
    let long = long()?;
    let size = long.layers[0].len();
    let breaking = |breaks, whole_only| {
        let manners = Manners {
            breaks,
            whole_only,
            ..Manners::default()
        };
        Registry::start(&[("app", &long, false)], manners)
    };
    let registry = breaking(2, false)?;
    pull(&images, &registry, "app", "app", &insecure())?;
    let sent: Vec<usize> = registry.sent().into_iter().map(|(_, count)| count).collect();
    ensure!(
        sent.len() == 3 && sent.iter().sum::<usize>() == size,
        "each byte came once: {sent:?}"
    );
    images.remove("app")?;
    images.prune()?;

    // From a registry that sends no parts, the second time is the whole.
    let registry = breaking(1, true)?;
    pull(&images, &registry, "app", "app", &insecure())?;
    let sent: Vec<usize> = registry.sent().into_iter().map(|(_, count)| count).collect();
    ensure!(sent == [size / 2, size], "{sent:?}");
    images.remove("app")?;
    images.prune()?;

    // What an earlier run left is gone on with, and damage in it is found.
    let hex = condo::image::Digest::of(&long.layers[0])
        .to_string()
        .replace("sha256:", "");
    let part = scratch.0.join(format!("images/.blobs/.part-{hex}"));
    fs::write(&part, &long.layers[0][..size - 1000])?;
    let registry = breaking(0, false)?;
    pull(&images, &registry, "app", "app", &insecure())?;
    ensure!(registry.sent() == [(registry.sent()[0].0.clone(), 1000)]);
    images.remove("app")?;
    images.prune()?;
    fs::write(&part, vec![0; size - 1000])?;
    let damaged = pull(&images, &registry, "app", "app", &insecure()).unwrap_err();
    ensure!(
        matches!(damaged.root(), Error::Corrupt(_)) && !part.exists(),
        "{damaged}"
    );
    pull(&images, &registry, "app", "app", &insecure())?;
    Ok(())
}

fn registries_are_told_who_we_are() -> Result<()> {
    needs!(root);
    let scratch = alone()?;
    let images = scratch.images();
    let three = saved::three_layers()?;
    for (name, wants) in [("basic", Wants::Basic(BASIC)), ("token", Wants::Token(BASIC))] {
        let manners = Manners {
            wants: Some(wants),
            ..Manners::default()
        };
        let registry = Registry::start(&[("app", &three, false)], manners)?;
        // A file that does not know the registry: none of whoever runs the tests is looked at.
        let file = scratch.0.join("auth.json");
        fs::write(&file, "{}")?;
        let mut options = PullOptions {
            auth_file: Some(file.clone()),
            ..insecure()
        };
        let refused = pull(&images, &registry, "app", name, &options).unwrap_err();
        ensure!(refused.to_string().contains("--creds"), "{refused}");
        options.credentials = Some(Credentials::new("user", "wrong"));
        ensure!(pull(&images, &registry, "app", name, &options).is_err());
        options.credentials = Some(Credentials::new("user", "secret"));
        pull(&images, &registry, "app", name, &options)?;
        let auth = json!({"auths": {registry.address.to_string(): {"auth": "dXNlcjpzZWNyZXQ="}}});
        fs::write(&file, serde_json::to_vec(&auth)?)?;
        options.credentials = None;
        pull(&images, &registry, "app", &format!("{name}-file"), &options)?;
    }
    Ok(())
}

fn a_registry_has_to_prove_who_it_is() -> Result<()> {
    needs!(root);
    let scratch = alone()?;
    let images = scratch.images();
    let three = saved::three_layers()?;
    let of = |tls| {
        let manners = Manners {
            tls,
            wants: Some(Wants::Token(BASIC)),
            ..Manners::default()
        };
        Registry::start(&[("app", &three, false)], manners)
    };
    let (plain, registry) = (of(false)?, of(true)?);
    let mut options = PullOptions {
        credentials: Some(Credentials::new("user", "secret")),
        ..PullOptions::default()
    };
    for untrusted in [&plain, &registry] {
        let refused = pull(&images, untrusted, "app", "app", &options).unwrap_err();
        ensure!(matches!(refused.root(), Error::Io(_)), "{refused}");
    }
    let trusting = Settings {
        ca: Some(scratch.0.join("ca.pem")),
        ..Settings::default()
    };
    fs::write(
        scratch.0.join("ca.pem"),
        include_bytes!("../../data/registry/ca.pem"),
    )?;
    options.registries.insert(registry.address.to_string(), trusting);
    pull(&images, &registry, "app", "app", &options)?;
    images.remove("app")?;
    pull(
        &images,
        &registry,
        "app",
        "app",
        &PullOptions {
            insecure: true,
            ..options.clone()
        },
    )?;
    Ok(())
}

fn mirrors_come_first() -> Result<()> {
    needs!(root);
    let scratch = alone()?;
    let images = scratch.images();
    let three = saved::three_layers()?;
    let mirror = Registry::start(&[("hub/library/app", &three, false)], Manners::default())?;
    let empty = Registry::start(&[], Manners::default())?;
    let settings = |mirrors: Vec<String>| PullOptions {
        registries: [(
            "docker.io".to_owned(),
            Settings {
                mirrors,
                insecure: true,
                ca: None,
            },
        )]
        .into(),
        ..PullOptions::default()
    };
    let both = settings(vec![
        format!("http://{}", empty.address),
        format!("http://{}/hub/", mirror.address),
    ]);
    let image = images.pull(&Reference::parse("app")?, "app", &both, &|_| {})?;
    ensure!(
        image.manifest.source == "docker.io/library/app:latest",
        "{:?}",
        image.manifest
    );
    // There is no way to the registry itself from here.
    let none = images
        .pull(&Reference::parse("other")?, "x", &both, &|_| {})
        .unwrap_err();
    ensure!(none.to_string().contains("docker.io/library/other"), "{none}");
    Ok(())
}

fn what_a_registry_exchanges_is_refused() -> Result<()> {
    needs!(root);
    let scratch = alone()?;
    let images = scratch.images();
    let long = long()?;
    let by_digest = condo::image::Digest::of(&Saved::index(&long.manifest(false)?)?);
    let registry = Registry::start(&[("app", &long, false)], Manners::default())?;
    // By its digest the index is not found at this registry: what it sends is looked at, not believed.
    let wrong = Reference::parse(&format!("{}/app@{by_digest}", registry.address))?;
    ensure!(images.pull(&wrong, "x", &insecure(), &|_| {}).is_err());
    let mut exchanged = saved::three_layers()?;
    exchanged.config = long.config;
    let registry = Registry::start(&[("app", &exchanged, false)], Manners::default())?;
    let refused = pull(&images, &registry, "app", "app", &insecure()).unwrap_err();
    ensure!(refused.to_string().contains("diff_ids"), "{refused}");
    ensure!(!images.exists("app"));
    Ok(())
}
