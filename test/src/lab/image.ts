/** What the lab's machines are made of: the image (`test/lab/build.sh`) and the built checkout. */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** The checkout. */
export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

const BUILD = join(ROOT, "test/lab/build.sh");

const TO_RUN = ["qemu-system-x86_64", "qemu-img", "mksquashfs", "setpriv"];
const TO_BUILD = ["mmdebstrap", "mke2fs", "cpio", "dpkg-deb", "apt-get", "busybox"];

function missingTools(tools: readonly string[]): string[] {
  const folders = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin", "/sbin"];
  return tools.filter((tool) => !folders.some((folder) => existsSync(join(folder, tool))));
}

function isDebian(): boolean {
  const file = "/etc/os-release";
  return existsSync(file) && /^ID=debian$/m.test(readFileSync(file, "utf8"));
}

/** Why no machine can be started here, or false. Builds nothing. */
export function labMissing(): string | false {
  if (!isDebian()) return "the lab needs a Debian host; its image is made from Debian's packages";
  if (process.arch !== "x64") return `the lab's machines are x86-64; this host is ${process.arch}`;
  const tools = missingTools(TO_RUN);
  if (tools.length > 0)
    return `${tools.join(", ")} not installed (npm run test:lab as root installs them)`;
  const { status, stderr } = spawnSync(BUILD, ["--find"], { encoding: "utf8" });
  if (status === 0) return false;
  if (status !== 3) return stderr.trim();
  if (process.getuid?.() !== 0)
    return "the lab's image is not built, and only root can (npm run test:lab)";
  const builders = missingTools(TO_BUILD);
  return builders.length > 0 && `to build the lab's image: ${builders.join(", ")} not installed`;
}

let image: Promise<string> | undefined;

/** The folder with kernel, initramfs and root image; built when it is not there. */
export function labImage(): Promise<string> {
  image ??= promisify(execFile)(BUILD, { timeout: 1_200_000, maxBuffer: 64 * 1024 ** 2 }).then(
    ({ stdout }) => stdout.trim(),
  );
  return image;
}

/** Not needed to run anything, and half of the size. */
const LEFT_OUT = [
  ".git",
  ".state",
  ".tls",
  ...["typescript", "@typescript", "oxlint", "@oxlint", "@oxlint-tsgolint", "oxlint-tsgolint"].map(
    (name) => `node_modules/${name}`,
  ),
  ...["oxfmt", "@oxfmt", "@rolldown", "rolldown", "@types"].map((name) => `node_modules/${name}`),
];

let tree: Promise<string> | undefined;

/** A squashfs of the checkout as it is built now; one for all machines of this process. */
export function projectTree(): Promise<string> {
  tree ??= (async () => {
    const folder = mkdtempSync(join(tmpdir(), "lab-tree-"));
    process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, "project.squashfs");
    const out = LEFT_OUT.map((path) => join(ROOT, path)).filter((path) => existsSync(path));
    await promisify(execFile)(
      "mksquashfs",
      [
        ROOT,
        file,
        "-comp",
        "lz4",
        "-quiet",
        "-no-progress",
        "-no-xattrs",
        "-all-root",
        "-e",
        ...out,
      ],
      { timeout: 300_000, cwd: dirname(file) },
    );
    return file;
  })();
  return tree;
}
