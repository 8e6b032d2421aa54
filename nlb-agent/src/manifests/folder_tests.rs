//! Folders that lose their files, or are themselves lost, step by step.

use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use tempfile::TempDir;

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
    )
}

struct Story {
    outer: TempDir,
    folder: Folder,
    now: Moment,
}

impl Story {
    fn new(known: &Known) -> Self {
        let outer = TempDir::new().unwrap();
        let folder = Folder::new(&outer.path().join("manifests"), known);
        Self { outer, folder, now: Moment::now(false) }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path.join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(&self.folder.path).unwrap();
        fs::write(self.path(file), text).unwrap();
    }

    /// Looks at the folder twice, far enough apart that absent files are gone; returns names and reasons.
    fn look(&mut self) -> (Vec<String>, Vec<String>) {
        for _ in 0..2 {
            self.folder.read(&BTreeSet::new(), self.now);
            self.now.instant += ABSENT * 2;
        }
        self.says()
    }

    fn says(&self) -> (Vec<String>, Vec<String>) {
        let sources = self.folder.sources(self.now.stamp);
        let names = sources.inputs.services.keys().map(|it| it.name.clone()).collect();
        (names, sources.problems.iter().map(|it| it.reason.clone()).collect())
    }

    fn restarted(&self) -> Folder {
        let known = self.folder.sources(self.now.stamp).known;
        let text = serde_json::to_string(&known).unwrap();
        Folder::new(&self.folder.path, &serde_json::from_str(&text).unwrap())
    }

    fn away(&self, name: &str) {
        fs::rename(&self.folder.path, self.outer.path().join(name)).unwrap();
    }
}

fn strings<const N: usize>(all: [&str; N]) -> Vec<String> {
    all.map(str::to_owned).to_vec()
}

#[test]
fn removing_files_in_the_folder_is_a_deletion_also_of_the_last_one() {
    let mut story = Story::new(&Known::default());
    story.write("a.yaml", &service("a"));
    story.write("b.yaml", &service("b"));
    assert_eq!(story.look(), (strings(["a", "b"]), vec![]));
    fs::remove_file(story.path("a.yaml")).unwrap();
    assert_eq!(story.look(), (strings(["b"]), vec![]));
    fs::remove_file(story.path("b.yaml")).unwrap();
    assert_eq!(story.look(), (vec![], strings(["NoManifests"])));
    story.write("c.yaml", &service("c"));
    assert_eq!(story.look(), (strings(["c"]), vec![]));
}

#[test]
fn a_file_that_is_absent_for_a_moment_is_being_replaced() {
    let mut story = Story::new(&Known::default());
    story.write("a.yaml", &service("a"));
    story.look();
    fs::remove_file(story.path("a.yaml")).unwrap();
    assert_eq!(story.folder.read(&BTreeSet::new(), story.now), Again::Soon);
    assert_eq!(story.says().0, ["a"]);
    story.write("a.yaml", &service("a2"));
    story.now.instant += ABSENT * 2;
    assert_eq!(story.folder.read(&BTreeSet::new(), story.now), Again::Never);
    assert_eq!(story.says(), (strings(["a2"]), vec![]));
    fs::remove_file(story.path("a.yaml")).unwrap();
    assert_eq!(story.folder.read(&BTreeSet::new(), story.now), Again::Soon, "counted from now on");
    assert_eq!(story.says().0, ["a2"]);
}

#[test]
fn a_folder_that_is_gone_or_replaced_by_one_without_objects_goes_on() {
    let other = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
    let comments = ("comments.yaml", "# soon\n");
    for (file, text) in
        [("", ""), ("empty.yaml", ""), comments, ("notes.txt", "x"), ("kustomization.yaml", other)]
    {
        let mut story = Story::new(&Known::default());
        story.write("a.yaml", &service("a"));
        story.look();
        story.away("old");
        assert_eq!(story.look(), (strings(["a"]), strings(["UnreadableManifest"])));
        fs::create_dir(&story.folder.path).unwrap();
        if !file.is_empty() {
            story.write(file, text);
        }
        let (names, reasons) = story.look();
        assert_eq!((names, reasons[0].as_str()), (strings(["a"]), "EmptyFolder"), "{file}");
        // The old one comes back.
        story.away("other");
        fs::rename(story.outer.path().join("old"), &story.folder.path).unwrap();
        assert_eq!(story.look(), (strings(["a"]), vec![]));
        // A new one that holds something counts.
        story.away("old");
        story.write("b.yaml", &service("b"));
        assert_eq!(story.look(), (strings(["a", "b"]), strings(["UnsettledFolder"])));
        story.now.instant += QUIET;
        assert_eq!(story.look(), (strings(["b"]), vec![]));
    }
}

#[test]
fn a_folder_that_is_filled_file_by_file_loses_nothing() {
    let mut story = Story::new(&Known::default());
    for name in ["a", "b", "c"] {
        story.write(&format!("{name}.yaml"), &service(name));
    }
    story.look();
    story.away("old");
    for name in ["a", "b", "c"] {
        story.write(&format!("{name}.yaml"), &service(name));
        assert_eq!(story.look().0, ["a", "b", "c"], "{name} was copied just now");
        story.now.instant += QUIET - Duration::from_secs(1);
    }
    assert_eq!(story.look(), (strings(["a", "b", "c"]), vec![]));
}

#[test]
fn a_folder_in_anothers_place_counts_once_it_is_settled() {
    let mut story = Story::new(&Known::default());
    story.write("a.yaml", &service("a"));
    story.look();
    story.away("old");
    story.write("b.yaml", &service("b"));
    let mut writer = fs::File::create(story.path("c.yaml")).unwrap();
    std::io::Write::write_all(&mut writer, service("c").as_bytes()).unwrap();
    let (names, reasons) = story.look();
    assert_eq!(names, ["a", "b"]);
    assert!(reasons.contains(&"UnsettledFolder".to_owned()), "{reasons:?}");
    drop(writer);
    assert_eq!(story.look().0, ["a", "b", "c"], "it may still be filled");
    story.now.instant += QUIET;
    assert_eq!(story.look(), (strings(["b", "c"]), vec![]));
}

#[test]
fn the_next_agent_knows_the_folder_again() {
    let mut story = Story::new(&Known::default());
    story.write("a.yaml", &service("a"));
    story.look();
    // Missing or another one, and empty: nothing is known, and the one before is not forgotten.
    story.away("old");
    for exists in [false, true] {
        if exists {
            fs::create_dir(&story.folder.path).unwrap();
        }
        story.folder = story.restarted();
        let before = story.folder.before.clone();
        let (_, reasons) = story.look();
        let sources = story.folder.sources(story.now.stamp);
        assert!(!sources.synced && sources.known == before && !before.files.is_empty(), "{sources:?}");
        assert_eq!(reasons, [if exists { "EmptyFolder" } else { "UnreadableManifest" }]);
    }
    // Back again, with the files removed from it meanwhile: that is a deletion.
    story.away("other");
    fs::rename(story.outer.path().join("old"), &story.folder.path).unwrap();
    fs::remove_file(story.path("a.yaml")).unwrap();
    story.folder = story.restarted();
    assert_eq!(story.look(), (vec![], strings(["NoManifests"])));
    assert!(story.folder.sources(story.now.stamp).synced);
}

#[test]
fn the_first_agent_of_all_takes_an_empty_folder_as_it_is() {
    let mut story = Story::new(&Known::default());
    assert!(!story.folder.sources(story.now.stamp).synced);
    fs::create_dir(&story.folder.path).unwrap();
    assert_eq!(story.look(), (vec![], vec![]));
    assert!(story.folder.sources(story.now.stamp).synced);
}

#[test]
fn only_a_file_that_gave_objects_before_leaves_doubts() {
    let mut story = Story::new(&Known::default());
    story.write("a.yaml", &service("a"));
    story.write("notes.yaml", "# no object was ever here\n");
    story.look();
    let doubtful = |story: &Story| story.folder.sources(story.now.stamp).doubtful;
    story.folder = story.restarted();
    story.look();
    assert!(!doubtful(&story));
    fs::write(story.path("a.yaml"), "").unwrap();
    story.folder = story.restarted();
    story.look();
    assert!(doubtful(&story));
    // Nor does the next agent forget it.
    story.folder = story.restarted();
    story.look();
    assert!(doubtful(&story));
    fs::write(story.path("a.yaml"), service("a")).unwrap();
    story.look();
    assert!(!doubtful(&story));
}

/// Mounts need root, and a mount namespace that ends with the thread.
#[test]
fn an_unmounted_folder_goes_on_and_is_known_when_it_comes_back() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let story = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let mut story = Story::new(&Known::default());
        let path = story.folder.path.clone();
        let source = story.outer.path().join("source");
        fs::create_dir(&path).unwrap();
        fs::create_dir(&source).unwrap();
        let bind =
            |source: &Path| mount(Some(source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        bind(&source);
        story.write("a.yaml", &service("a"));
        assert_eq!(story.look(), (strings(["a"]), vec![]));
        umount2(&path, MntFlags::empty()).unwrap();
        assert_eq!(story.look(), (strings(["a"]), strings(["EmptyFolder"])));
        mount(Some("none"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        assert_eq!(story.look(), (strings(["a"]), strings(["EmptyFolder"])));
        umount2(&path, MntFlags::empty()).unwrap();
        bind(&source);
        assert_eq!(story.look(), (strings(["a"]), vec![]));
        umount2(&path, MntFlags::empty()).unwrap();
    });
    story.join().unwrap();
}
