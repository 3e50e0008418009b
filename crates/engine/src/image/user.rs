//! Whom a container runs as: an image's or a pod's user, looked up in the image.
use super::{ImageError, Rootfs, User};

impl Rootfs {
    /// Resolves `user`, `uid`, `user:group` or `uid:gid` as runc and containerd do: a number need
    /// not be known to the image, a name must; the group of a known user is the one that
    /// `/etc/passwd` lists, of an unknown number 0. Empty is root.
    ///
    /// # Errors
    /// [`ImageError::User`]: a name that `/etc/passwd` or `/etc/group` does not list.
    pub fn user(&self, given: &str) -> Result<User, ImageError> {
        let unknown = |reason: String| ImageError::User {
            user: given.to_owned(),
            reason,
        };
        let (name, group) = match given.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (given, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = name.parse::<u32>().ok();
        let known = self
            .passwd
            .lines()
            .filter_map(Passwd::parse)
            .find(|entry| match number {
                Some(uid) => entry.uid == uid,
                None => entry.name == name,
            });
        let mut user = match (&known, number) {
            (Some(entry), _) => User {
                uid: entry.uid,
                gid: entry.gid,
                home: entry.home.to_owned(),
                ..User::default()
            },
            (None, Some(uid)) => User {
                uid,
                ..User::default()
            },
            (None, None) => {
                return Err(unknown(format!(
                    "`{name}` is not in the image's /etc/passwd"
                )));
            }
        };
        if user.home.is_empty() {
            user.home = "/".into();
        }
        match group {
            // An explicit group stands alone, without the further ones of the user.
            Some(group) => {
                user.gid = self.gid(group).ok_or_else(|| {
                    unknown(format!("group `{group}` is not in the image's /etc/group"))
                })?
            }
            None => user.additional_gids = self.groups_of(known.map(|entry| entry.name)),
        }
        Ok(user)
    }

    /// The id of a group, by name or number.
    #[must_use]
    pub fn gid(&self, group: &str) -> Option<u32> {
        let listed = || {
            self.group
                .lines()
                .filter_map(Group::parse)
                .find(|entry| entry.name == group)
        };
        group
            .parse()
            .ok()
            .or_else(|| listed().map(|entry| entry.gid))
    }

    fn groups_of(&self, user: Option<&str>) -> Vec<u32> {
        let Some(user) = user else { return Vec::new() };
        let mut gids: Vec<_> = self
            .group
            .lines()
            .filter_map(Group::parse)
            .filter(|entry| entry.members.split(',').any(|member| member == user))
            .map(|entry| entry.gid)
            .collect();
        gids.sort_unstable();
        gids.dedup();
        gids
    }
}

/// A line of passwd(5).
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Passwd<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let (_comment, home) = (fields.next(), fields.next());
        Some(Self {
            name,
            uid,
            gid,
            home: home.unwrap_or_default(),
        })
    }
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some(Self {
            name,
            gid: fields.next()?.parse().ok()?,
            members: fields.next().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootfs() -> Rootfs {
        Rootfs {
            mounts: Vec::new(),
            passwd: "root:x:0:0:root:/root:/bin/sh\n# note\nweb:x:33:34::/var/www:\nshort:x:9:9\n"
                .into(),
            group: "root:x:0:\nweb:x:34:\nlog:x:4:syslog,web\ndisk:x:6:root,web\nbad\n".into(),
        }
    }

    #[test]
    fn a_user_is_looked_up_in_the_image() {
        let rootfs = rootfs();
        let root = rootfs.user("").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        assert_eq!(root.additional_gids, [6]);
        let web = User {
            uid: 33,
            gid: 34,
            additional_gids: vec![4, 6],
            home: "/var/www".into(),
        };
        assert_eq!(rootfs.user("web").unwrap(), web);
        assert_eq!(rootfs.user("33").unwrap(), web);
        let with_group = rootfs.user("web:log").unwrap();
        assert_eq!((with_group.gid, with_group.additional_gids), (4, vec![]));
        let unknown = rootfs.user("1000").unwrap();
        assert_eq!(
            (unknown.uid, unknown.gid, unknown.home.as_str()),
            (1000, 0, "/")
        );
        assert_eq!(rootfs.user("1000:2000").unwrap().gid, 2000);
        assert_eq!(rootfs.user("short").unwrap().home, "/");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let rootfs = rootfs();
        let text = rootfs.user("nobody").unwrap_err().to_string();
        assert_eq!(
            text,
            "user `nobody`: `nobody` is not in the image's /etc/passwd; use a numeric id, or add it \
             to the image"
        );
        assert!(
            rootfs
                .user("web:nogroup")
                .unwrap_err()
                .to_string()
                .contains("/etc/group")
        );
    }
}
