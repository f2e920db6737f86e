//! Images out of recipes.

use super::archive::{OnProgress, Progress};
use super::entry::{Entry, Kind};
use super::making::describe;
use super::recipe::{Base, Recipe};
use super::store::{Image, ImportOptions};
use super::tree::Tree;
use super::{Images, busybox, debian};
use crate::error::Result;

impl Images {
    /// Makes the image of a recipe, under the recipe's name.
    ///
    /// # Errors
    /// [`crate::error::Error::Exists`], [`crate::error::Error::Busy`] while another invocation makes it,
    /// [`crate::error::Error::Unsupported`] when this host lacks what the recipe needs.
    pub fn build(&self, recipe: &Recipe, progress: &mut OnProgress<'_>) -> Result<Image> {
        let text = &recipe.text;
        self.make(&text.name, |place| {
            let root = &place.root()?;
            let mut tree = Tree::new(root);
            match &text.base {
                Base::Busybox => busybox::install(&mut tree)?,
                Base::Debian { suite, packages } => {
                    let sources = debian::install(&mut tree, (suite, packages), &place.work, progress)?;
                    let path = "etc/apt/sources.list.d/debian.sources";
                    tree.put(
                        &Entry::new(path, Kind::File(None), 0o644),
                        &mut sources.as_bytes(),
                    )?;
                }
            }
            progress(Progress::stage("finishing"));
            recipe.apply(root, &mut tree)?;
            let contents = tree.finish()?;
            let options = ImportOptions {
                init: text.init.clone(),
                stop_signal: text.stop_signal.clone(),
                ..ImportOptions::default()
            };
            describe(root, format!("recipe {}", text.name), &options, &contents)
        })
    }
}
