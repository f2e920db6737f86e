//! `condo image …`.

use anyhow::{Context, Result};

use super::args::ImageCommand;
use super::pull;
use crate::cli::exit::Exit;
use crate::cli::output::{fields, moment, print, print_json, table};
use crate::cli::progress::Spinner;
use crate::cli::report::report;
use crate::vps::record::ids::USUAL;
use crate::vps::record::images::ImportRequest;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::size;
use crate::vps::record::view::ImageView;

pub(super) fn run(condo: &Condo, command: ImageCommand) -> Result<Exit> {
    match command {
        ImageCommand::Build { recipe, name } => {
            let spinner = Spinner::start(format!("building {}", recipe.display()));
            let built = condo.image_build(&recipe, name.as_deref(), &|doing| spinner.say(doing));
            drop(spinner);
            ready(&built?)
        }
        ImageCommand::Pull(args) => ready(&pull::pull(condo, args)?),
        ImageCommand::Import {
            archive,
            name,
            init,
            stop_signal,
        } => {
            let request = ImportRequest {
                archive,
                name,
                init,
                stop_signal,
                metadata: None,
            };
            let spinner = Spinner::start(format!("importing {}", request.archive.display()));
            let imported = condo.image_import(&request, &|doing| spinner.say(doing));
            drop(spinner);
            ready(&imported?)
        }
        ImageCommand::List { json } => list(condo, json),
        ImageCommand::Show { name, json } => show(condo, &name, json),
        ImageCommand::Remove { names } => Ok(remove(condo, &names)),
        ImageCommand::Prune { all, json } => prune(condo, all, json),
    }
}

fn ready(image: &ImageView) -> Result<Exit> {
    let needs = match image.ids {
        USUAL => String::new(),
        ids => format!("; VPSs of it need --ids {ids}"),
    };
    let size = size::display(image.size);
    print(&format!("{} ready, {size}{needs}", image.name))?;
    Ok(Exit::Success)
}

fn list(condo: &Condo, json: bool) -> Result<Exit> {
    let all = condo.image_list()?;
    if json {
        print_json(&all)?;
    } else {
        print(&listed(&all))?;
    }
    Ok(Exit::Success)
}

fn listed(all: &[ImageView]) -> String {
    let rows = all.iter().map(|image| {
        [
            image.name.clone(),
            image.architecture.clone(),
            size::display(image.size),
            image.used_by.len().to_string(),
            moment(image.created),
        ]
    });
    table(["IMAGE", "MACHINE", "SIZE", "VPSS", "CREATED"], rows)
}

fn show(condo: &Condo, name: &str, json: bool) -> Result<Exit> {
    let image = condo.image_show(name)?;
    if json {
        print_json(&image)?;
        return Ok(Exit::Success);
    }
    let users: Vec<_> = image.used_by.iter().map(Name::as_str).collect();
    print(&fields(&[
        ("image", image.name.clone()),
        ("machine", image.architecture.clone()),
        ("init", image.init.join(" ")),
        ("stop signal", image.stop_signal.clone()),
        ("size", size::display(image.size)),
        ("created", moment(image.created)),
        ("source", image.source.clone()),
        ("digest", image.digest.clone().unwrap_or_else(|| "-".into())),
        (
            "layers",
            match image.layers {
                0 => "-".into(),
                count => count.to_string(),
            },
        ),
        ("user ids", image.ids.to_string()),
        (
            "used by",
            if users.is_empty() {
                "-".into()
            } else {
                users.join(", ")
            },
        ),
    ]))?;
    Ok(Exit::Success)
}

/// Each is tried, whatever became of the others.
fn remove(condo: &Condo, names: &[String]) -> Exit {
    let mut exit = Exit::Success;
    for name in names {
        if let Err(e) = condo
            .image_remove(name)
            .with_context(|| format!("remove `{name}`"))
        {
            exit = report(&e);
        }
    }
    exit
}

fn prune(condo: &Condo, all: bool, json: bool) -> Result<Exit> {
    let removed = condo.image_prune(all)?;
    if json {
        print_json(&removed)?;
        return Ok(Exit::Success);
    }
    for one in &removed {
        print(&format!("{} removed, {}", one.what, size::display(one.size)))?;
    }
    let sum = removed.iter().map(|one| one.size).sum();
    print(&format!("{} freed", size::display(sum)))?;
    Ok(Exit::Success)
}
