//! A real folder, changed in every way in which people and kubelets change folders.

use super::*;
use crate::problem::Effect;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n"
    )
}

fn follow(folder: &Path) -> anyhow::Result<tokio::sync::watch::Receiver<Sources>> {
    watch(folder, &Known::default())
}

fn read(folder: &Path) -> Sources {
    let (mut folder, now) = (Folder::new(folder, &Known::default()), Moment::now(true));
    folder.read(&BTreeSet::new(), now);
    folder.sources(now.stamp)
}

fn reasons(sources: &Sources) -> Vec<&str> {
    sources.problems.iter().map(|it| it.reason.as_str()).collect()
}

fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("tmp");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, path).unwrap();
}

fn ports(sources: &Sources) -> Vec<i32> {
    let specs = sources.inputs.services.values().filter_map(|it| it.spec.as_ref());
    specs.flat_map(|spec| spec.ports.iter().flatten().map(|port| port.port)).collect()
}

fn until(receiver: &mut tokio::sync::watch::Receiver<Sources>, wanted: impl Fn(&Sources) -> bool) -> Sources {
    let start = Instant::now();
    loop {
        let now = receiver.borrow_and_update().clone();
        if wanted(&now) {
            return now;
        }
        assert!(start.elapsed() < LIMIT, "the folder says {now:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_file_is_replaced_added_and_removed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("web", 80)).unwrap();
    let mut sources = follow(folder.path()).unwrap();
    assert_eq!(ports(&sources.borrow()), [80]);
    replace(&file, &service("web", 81));
    until(&mut sources, |it| ports(it) == [81]);
    fs::write(folder.path().join("b.yml"), service("zweb", 90)).unwrap();
    until(&mut sources, |it| ports(it) == [81, 90]);
    fs::remove_file(&file).unwrap();
    until(&mut sources, |it| ports(it) == [90] && it.problems.is_empty());
    // As an editor does it.
    fs::rename(folder.path().join("b.yml"), folder.path().join("b.yml~")).unwrap();
    fs::write(folder.path().join("b.yml"), service("zweb", 91)).unwrap();
    until(&mut sources, |it| ports(it) == [91] && it.problems.is_empty());
}

#[test]
fn a_config_map_swaps_its_link() {
    let folder = TempDir::new().unwrap();
    let version = |name: &str, port| {
        let version = folder.path().join(name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("web.yaml"), service("web", port)).unwrap();
        symlink(name, folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    version("..1", 80);
    symlink("..data/web.yaml", folder.path().join("web.yaml")).unwrap();
    let mut sources = follow(folder.path()).unwrap();
    assert_eq!(ports(&sources.borrow()), [80]);
    version("..2", 81);
    fs::remove_dir_all(folder.path().join("..1")).unwrap();
    until(&mut sources, |it| ports(it) == [81] && it.problems.is_empty());
}

#[test]
fn a_half_written_file_keeps_what_it_said() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("web", 80)).unwrap();
    let mut sources = follow(folder.path()).unwrap();
    fs::write(&file, "apiVersion: v1\nkind: Service\nmetadata: {name: w").unwrap();
    let broken = until(&mut sources, |it| !it.problems.is_empty());
    assert_eq!(ports(&broken), [80]);
    assert_eq!(broken.problems[0].effect, Effect::KeptLastGood);
    assert_eq!(broken.problems[0].object, format!("File {}", file.display()));
    fs::write(&file, service("web", 82)).unwrap();
    until(&mut sources, |it| ports(it) == [82] && it.problems.is_empty());
}

#[test]
fn a_folder_goes_away_and_comes_back() {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("manifests");
    let mut sources = follow(&folder).unwrap();
    assert!(!sources.borrow().synced);
    assert_eq!(sources.borrow().problems[0].object, format!("File {}", folder.display()));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("web", 80)).unwrap();
    until(&mut sources, |it| ports(it) == [80] && it.problems.is_empty() && it.synced);
    fs::rename(&folder, outer.path().join("away")).unwrap();
    let gone = until(&mut sources, |it| !it.problems.is_empty());
    assert_eq!(ports(&gone), [80]);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("web", 81)).unwrap();
    until(&mut sources, |it| ports(it) == [81] && it.problems.is_empty());
    fs::write(folder.join("a.yaml"), service("web", 82)).unwrap();
    until(&mut sources, |it| ports(it) == [82]);
}

#[test]
fn many_changes_end_right_and_no_change_is_no_news() {
    let folder = TempDir::new().unwrap();
    let mut sources = follow(folder.path()).unwrap();
    let path = |n: u16| folder.path().join(format!("{n:03}.yaml"));
    (1..=100).for_each(|n| fs::write(path(n), service(&format!("s{n:03}"), n)).unwrap());
    until(&mut sources, |it| ports(it).len() == 100);
    (1..=100).for_each(|n| replace(&path(n), &service(&format!("s{n:03}"), n + 1000)));
    until(&mut sources, |it| ports(it).iter().all(|port| *port > 1000) && ports(it).len() == 100);
    let text = format!("# another comment\n{}", service("s001", 1001));
    replace(&path(1), &text);
    std::thread::sleep(QUIET * 6);
    assert!(!sources.has_changed().unwrap());
}

#[test]
fn the_first_of_two_definitions_wins() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), service("web", 80)).unwrap();
    fs::write(folder.path().join("b.yaml"), service("web", 81)).unwrap();
    let sources = read(folder.path());
    assert_eq!(ports(&sources), [80]);
    assert_eq!(sources.problems[0].reason, "DuplicateObject");
    assert!(sources.problems[0].object.ends_with("b.yaml"));
}

#[test]
fn a_document_that_has_no_effect_is_told_by_what_it_lacks() {
    let folder = TempDir::new().unwrap();
    let text = "kind: Service\nmetadata: {name: web}\n---\napiVersion: apps/v1\nkind: Deployment\n";
    fs::write(folder.path().join("a.yaml"), text).unwrap();
    let problems = read(folder.path()).problems;
    let told: Vec<_> = problems.iter().map(|it| (it.field.as_deref(), it.value.as_deref())).collect();
    assert_eq!(told, [(Some("apiVersion"), None), (Some("kind"), Some("Deployment"))]);
    assert!(problems[0].message.contains("without an `apiVersion`"), "{}", problems[0].message);
}

/// `kubectl get … > file`: the shell empties the file at once, and the text comes later, piece by piece.
#[test]
fn a_file_that_is_written_slowly_loses_nothing_on_the_way() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.yaml");
    fs::write(&path, format!("{}---\n{}", service("web", 80), service("zweb", 90))).unwrap();
    let mut sources = follow(folder.path()).unwrap();
    assert_eq!(ports(&sources.borrow()), [80, 90]);
    let mut file = fs::File::create(&path).unwrap();
    let writing = until(&mut sources, |it| reasons(it) == ["FileBeingWritten"]);
    assert_eq!(ports(&writing), [80, 90]);
    let new = format!("{}---\n{}", service("web", 8080), service("zweb", 9090));
    let (first, rest) = new.split_at(new.find("---").unwrap() + 4);
    file.write_all(first.as_bytes()).unwrap();
    let writing = until(&mut sources, |it| ports(it) == [8080, 90]);
    assert_eq!(reasons(&writing), ["FileBeingWritten"]);
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    until(&mut sources, |it| ports(it) == [8080, 9090] && it.problems.is_empty());
}

#[test]
fn a_command_that_fails_leaves_what_was_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.yaml");
    fs::write(&path, service("web", 80)).unwrap();
    let mut sources = follow(folder.path()).unwrap();
    drop(fs::File::create(&path).unwrap());
    let empty = until(&mut sources, |it| reasons(it) == ["EmptyManifest"]);
    assert_eq!((ports(&empty), empty.problems[0].effect), (vec![80], Effect::KeptLastGood));
    fs::remove_file(&path).unwrap();
    until(&mut sources, |it| ports(it).is_empty() && reasons(it) == ["NoManifests"]);
    fs::write(&path, service("web", 81)).unwrap();
    until(&mut sources, |it| ports(it) == [81] && it.problems.is_empty());
}

/// The writer was there before the agent, and no event tells of it.
#[test]
fn a_writer_that_was_there_first_is_seen() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.yaml");
    let mut file = fs::File::create(&path).unwrap();
    write!(file, "{}---\n{}", service("web", 80), service("zweb", 90)).unwrap();
    let mut sources = follow(folder.path()).unwrap();
    assert_eq!((ports(&sources.borrow()), reasons(&sources.borrow())), (vec![80], vec!["FileBeingWritten"]));
    assert!(sources.borrow().doubtful);
    drop(file);
    until(&mut sources, |it| ports(it) == [80, 90] && it.problems.is_empty() && !it.doubtful);
}

/// A link's target lies where nothing is watched.
#[test]
fn a_writer_behind_a_link_is_seen() {
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = elsewhere.path().join("a.yaml");
    fs::write(&path, service("web", 80)).unwrap();
    symlink(&path, folder.path().join("a.yaml")).unwrap();
    let mut sources = follow(folder.path()).unwrap();
    let file = fs::File::create(&path).unwrap();
    let writing = until(&mut sources, |it| reasons(it) == ["FileBeingWritten"]);
    assert_eq!(ports(&writing), [80]);
    drop(file);
    replace(&path, &service("web", 81));
    until(&mut sources, |it| ports(it) == [81] && it.problems.is_empty());
}

#[test]
fn a_folder_that_is_moved_away_and_replaced_by_an_empty_one_goes_on() {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("web", 80)).unwrap();
    let mut sources = follow(&folder).unwrap();
    fs::rename(&folder, outer.path().join("away")).unwrap();
    fs::create_dir(&folder).unwrap();
    let empty = until(&mut sources, |it| reasons(it) == ["EmptyFolder"]);
    assert_eq!(ports(&empty), [80]);
    fs::write(folder.join("b.yaml"), service("web", 81)).unwrap();
    until(&mut sources, |it| ports(it) == [81] && it.problems.is_empty());
    fs::remove_file(folder.join("b.yaml")).unwrap();
    until(&mut sources, |it| ports(it).is_empty() && reasons(it) == ["NoManifests"]);
}
