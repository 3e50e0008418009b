//! Volumes with the files of an object.
use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1;

use super::{Translation, climbs};
use crate::manifest::objects::{Data, Kind};
use crate::manifest::pod::{Volume, VolumeFile};

/// What files have if nobody says.
const DEFAULT_MODE: i32 = 0o644;

impl Translation<'_> {
    pub(super) fn config_map(&mut self, path: &str, volume: v1::ConfigMapVolumeSource) -> Volume {
        let path = format!("{path}.configMap");
        let data = self.object(
            &format!("{path}.name"),
            Kind::ConfigMap,
            &volume.name,
            volume.optional,
        );
        let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
        Volume::Files {
            files: self.files(&path, data, volume.items, mode, volume.optional),
            secret: false,
        }
    }

    pub(super) fn secret(&mut self, path: &str, volume: v1::SecretVolumeSource) -> Volume {
        let path = format!("{path}.secret");
        let name = volume.secret_name.unwrap_or_default();
        let data = self.object(
            &format!("{path}.secretName"),
            Kind::Secret,
            &name,
            volume.optional,
        );
        let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
        Volume::Files {
            files: self.files(&path, data, volume.items, mode, volume.optional),
            secret: true,
        }
    }

    fn object(
        &mut self,
        path: &str,
        kind: Kind,
        name: &str,
        optional: Option<bool>,
    ) -> Option<Data> {
        match self.objects.get(kind, name, optional) {
            Ok(data) => Some(data.cloned().unwrap_or_default()),
            Err(reason) => {
                self.problems.add(path, reason);
                None
            }
        }
    }

    /// `None` for an object that is not there, of which enough was said.
    fn files(
        &mut self,
        path: &str,
        data: Option<Data>,
        items: Option<Vec<v1::KeyToPath>>,
        mode: i32,
        optional: Option<bool>,
    ) -> BTreeMap<PathBuf, VolumeFile> {
        let default = self.mode(&format!("{path}.defaultMode"), mode);
        let Some(mut data) = data else {
            return BTreeMap::new();
        };
        let Some(items) = items else {
            let files = data.into_iter().map(|(key, content)| {
                let mode = default;
                (key.into(), VolumeFile { content, mode })
            });
            return files.collect();
        };
        let mut files = BTreeMap::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}.items[{index}]");
            let place = PathBuf::from(&item.path);
            if item.path.is_empty() || place.is_absolute() || climbs(&place) {
                self.problems.add(
                    &format!("{path}.path"),
                    "must be a relative path without `..`",
                );
            }
            let mode = item
                .mode
                .map(|mode| self.mode(&format!("{path}.mode"), mode));
            match data.get_mut(&item.key) {
                Some(content) => {
                    let content = content.clone();
                    let mode = mode.unwrap_or(default);
                    files.insert(place, VolumeFile { content, mode });
                }
                None if optional == Some(true) => {}
                None => {
                    let reason = format!("the object has no `{}`", item.key);
                    self.problems.add(&format!("{path}.key"), reason);
                }
            }
        }
        files
    }

    fn mode(&mut self, path: &str, mode: i32) -> u32 {
        let found = u32::try_from(mode).ok().filter(|mode| *mode <= 0o777);
        let reason = || format!("{mode} is no mode: 0 to 0777, in decimal 511");
        self.problems.or_default(path, found.ok_or_else(reason))
    }
}
