/** A folder with all that a file system can hold, and its description for comparing. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

const MIB = 1024 ** 2;

export const SPARSE_BYTES = 64 * MIB;

const ODD_FILES = [
  "new\nline",
  "-rf",
  " ",
  "*",
  "\\",
  ".hidden",
  "Grüße",
  "n".repeat(255),
  "a'b\"c",
];

/** Why no extended attributes can be set in the tests, or undefined. */
export function attributesMissing(): string | undefined {
  const missing = ["setfattr", "getfattr", "setfacl"].filter(
    (tool) => spawnSync(tool, ["--version"]).error !== undefined,
  );
  return missing.length === 0 ? undefined : `${missing.join(", ")}: not installed`;
}

export function run(tool: string, args: readonly string[], cwd?: string): string {
  const { status, stdout, stderr, error } = spawnSync(tool, args, { encoding: "utf8", cwd });
  if (error !== undefined || status !== 0)
    throw new Error(`${tool} ${args.join(" ")}: ${error?.message ?? stderr}`);
  return stdout;
}

/** Fills a folder with files of every kind. */
export function fillTree(folder: string): void {
  mkdirSync(join(folder, "a/b/c"), { recursive: true });
  mkdirSync(join(folder, "empty"), { mode: 0o700 });
  writeFileSync(join(folder, "a/b/c/deep"), "deep");
  writeFileSync(join(folder, "plain"), "x".repeat(100_000));
  writeFileSync(join(folder, "nothing"), "");
  for (const name of ODD_FILES) writeFileSync(join(folder, name), name);
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff, 0xfe])]), "bytes");
  linkSync(join(folder, "plain"), join(folder, "a/hard"));
  symlinkSync("plain", join(folder, "relative"));
  symlinkSync("/etc/passwd", join(folder, "absolute"));
  symlinkSync("../../../nowhere", join(folder, "a/dangling"));
  symlinkSync("loop", join(folder, "loop"));
  run("mkfifo", [join(folder, "fifo")]);
  const sparse = openSync(join(folder, "sparse"), "w");
  ftruncateSync(sparse, SPARSE_BYTES);
  writeSync(sparse, "end", SPARSE_BYTES - 3);
  closeSync(sparse);
  if (process.getuid?.() === 0) chownSync(join(folder, "plain"), 1234, 5678);
  chmodSync(join(folder, "plain"), 0o4751);
  chmodSync(join(folder, "empty"), 0o1770);
  utimesSync(join(folder, "plain"), 1_000_000_000.5, 1_234_567_890.25);
  utimesSync(join(folder, "empty"), 1_000_000_000, 999_999_999);
}

/** Every name below a folder with what it is; two trees are the same when these are equal. */
export function describeTree(folder: string): string[] {
  const lines: string[] = [];
  const visit = (path: Buffer, name: string): void => {
    const stats = lstatSync(path, { bigint: true });
    const base = [name, stats.mode.toString(8), stats.uid, stats.gid, stats.mtimeNs];
    if (stats.isDirectory()) {
      lines.push(base.join(" "));
      const entries = readdirSync(path, { encoding: "buffer" }) as Buffer[];
      for (const entry of entries)
        visit(Buffer.concat([path, Buffer.from("/"), entry]), `${name}/${entry.toString("hex")}`);
      return;
    }
    const content = stats.isSymbolicLink()
      ? readlinkSync(path)
      : stats.isFile()
        ? createHash("sha256").update(readFileSync(path)).digest("hex")
        : "special";
    lines.push([...base, stats.size, stats.nlink, content].join(" "));
  };
  visit(Buffer.from(folder), "");
  return lines.toSorted();
}

/** Extended attributes and access lists below a folder, as text. */
export function describeAttributes(folder: string): string[] {
  const text = run("getfattr", ["-R", "-h", "-d", "-m", "-", "-e", "hex", "."], folder);
  return text
    .split("\n\n")
    .map((block) => block.trim())
    .filter((block) => block !== "")
    .toSorted();
}

/** What a file takes on its disk. */
export function diskBytes(path: string): number {
  return lstatSync(path).blocks * 512;
}
