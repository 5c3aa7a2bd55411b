/**
 * qemu-img(1). The format is always stated and paths are absolute, so that nothing is probed and no name is
 * read as a protocol; a new image is always made under a name where nothing is.
 */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { ImageCheck, OpContext } from "../../core/driver.js";
import { NO_TIME_LIMIT_MS } from "../folders/time-limit.js";

export type Preallocation = "off" | "metadata" | "falloc" | "full";

/** An image as a tool has to be told of it. */
export interface Image {
  /** Absolute. */
  readonly path: string;
  readonly format: "raw" | "qcow2";
  /** The file with its passphrase, when it is encrypted with LUKS. */
  readonly keyFile?: string | undefined;
}

const KEY = "key0";

/** A comma ends a value in QEMU's options, and two stand for one. */
function escaped(text: string): string {
  return text.replaceAll(",", ",,");
}

function keyObject(keyFile: string): readonly string[] {
  return ["--object", `secret,id=${KEY},file=${escaped(keyFile)}`];
}

function named({ path, format, keyFile }: Image): readonly string[] {
  if (keyFile === undefined) return ["-f", format, "--", path];
  return byOptions({ path, format, keyFile });
}

/** For commands that have no option for the format, and would probe it. */
function byOptions(image: Image): readonly string[] {
  const { keyFile } = image;
  const keys = keyFile === undefined ? [] : keyObject(keyFile);
  return [...keys, "--image-opts", "--", optionsOf(image)];
}

function optionsOf({ path, format, keyFile }: Image): string {
  const file = `file.driver=file,file.filename=${escaped(path)}`;
  if (keyFile === undefined) return `driver=${format},${file}`;
  if (format === "raw") return `driver=luks,key-secret=${KEY},${file}`;
  return `driver=qcow2,encrypt.key-secret=${KEY},${file}`;
}

const LOCKED = /Failed to get (shared )?"(\w+)" lock/;

/**
 * Whether a QEMU, on any host that shares the file system's locks, may write to a file. The file's bytes are not looked
 * at, so no name in them is followed; and one that only reads is no hindrance. False where the tool cannot tell.
 */
export async function isLockedForWriting(path: string, context: OpContext): Promise<boolean> {
  const file = `file.image.driver=file,file.image.filename=${escaped(path)}`;
  const alone = `driver=raw,file.driver=blkdebug,file.unshare-child-perms.0=write,${file}`;
  try {
    await context.exec("qemu-img", ["info", "--image-opts", "--", alone], context.signal);
    return false;
  } catch (error) {
    const hasEnded = error instanceof CommandError && (error.exitCode > 0 || error.isMissing);
    if (hasEnded) return LOCKED.test(error.stderr);
    throw error;
  }
}

/** What qemu-img says, in the words of the API. */
export function meaningOf(error: unknown, { path }: Pick<Image, "path">): unknown {
  if (!(error instanceof CommandError)) return error;
  const { stderr, data, exitCode, isMissing } = error;
  const as = (code: ConstructorParameters<typeof StorageError>[0], text: string) =>
    new StorageError(code, text, data, { cause: error });
  if (isMissing)
    return as("failed-precondition", "qemu-img is not installed; install Debian's qemu-utils");
  const lock = LOCKED.exec(stderr);
  if (lock !== null)
    return as(
      "failed-precondition",
      `another QEMU process has ${path} open and refuses the ${lock[1] ?? ""}"${lock[2]}" lock; stop it and try again`,
    );
  if (/too large for file format|File too large|exceeds? maximum/i.test(stderr))
    return as("invalid-argument", `${path} would be too large for its format or file system`);
  if (exitCode === 1 && /use the --shrink option/i.test(stderr))
    return as("invalid-argument", `${path} is larger already`);
  return error;
}

interface RunOptions {
  readonly onOutput?: (text: string) => void;
  /** For what comes from outside. */
  readonly isConfined?: boolean;
}

/** Without a network, and with bounds for memory and open files; no core dumps of someone's disk. */
const CONFINED = ["--as=4294967296", "--nofile=256", "--core=0", "--"] as const;
const WITHOUT_NETWORK = ["unshare", "--net", "--"] as const;

async function run(
  image: Pick<Image, "path">,
  args: readonly string[],
  context: OpContext,
  { onOutput, isConfined = false }: RunOptions = {},
): Promise<string> {
  const options = { timeoutMs: NO_TIME_LIMIT_MS, ...(onOutput !== undefined && { onOutput }) };
  // Only root may leave the network behind; another user's tool has only that user's rights.
  const unshare = process.getuid?.() === 0 ? WITHOUT_NETWORK : [];
  const [file, before] = isConfined
    ? ["prlimit", [...CONFINED, ...unshare, "qemu-img"]]
    : ["qemu-img", []];
  try {
    const { stdout } = await context.exec(file, [...before, ...args], context.signal, options);
    return stdout;
  } catch (error) {
    throw meaningOf(error, image);
  }
}

export interface NewImage extends Image {
  readonly sizeBytes: number;
  readonly preallocation?: Preallocation;
  /** What lies below a new qcow2: a file name in the same folder. */
  readonly backing?: { readonly name: string; readonly format: "raw" | "qcow2" };
}

/** Makes an image where nothing is; qemu-img would write over what is there. */
export async function createImage(
  { path, format, keyFile, sizeBytes, preallocation = "off", backing }: NewImage,
  context: OpContext,
): Promise<void> {
  const options: string[] = [];
  if (keyFile !== undefined && format === "qcow2")
    options.push(`encrypt.format=luks,encrypt.key-secret=${KEY},encrypt.iter-time=${KEY_MS}`);
  if (keyFile !== undefined && format === "raw")
    options.push(`key-secret=${KEY},iter-time=${KEY_MS}`);
  if (preallocation !== "off") options.push(`preallocation=${preallocation}`);
  // It is a layer of ours, which may be open for writing at this moment: that is not looked at.
  const base = backing === undefined ? [] : ["-u", "-b", backing.name, "-F", backing.format];
  const args = [
    "create",
    "-q",
    ...(keyFile === undefined ? [] : keyObject(keyFile)),
    "-f",
    keyFile !== undefined && format === "raw" ? "luks" : format,
    ...options.flatMap((option) => ["-o", option]),
    ...base,
    "--",
    path,
    String(sizeBytes),
  ];
  for (let left = KEY_TRIES; ; left -= 1) {
    try {
      await run({ path }, args, context);
      return;
    } catch (error) {
      const isBusy = error instanceof CommandError && NO_CPU_TIME.test(error.stderr);
      if (!isBusy || left <= 1) throw error;
    }
  }
}

/** How long the making of a key from the passphrase may take; a passphrase of random bytes needs no more. */
const KEY_MS = 300;

/** On a busy host qemu-img cannot measure how long the making of a key takes, and gives up. */
const NO_CPU_TIME = /Unable to get accurate CPU usage/;
const KEY_TRIES = 10;

export interface Resizing {
  /** Allows a size that is smaller: what lies behind it is lost. */
  readonly shrink?: boolean;
  /** Of what is added. */
  readonly preallocation?: Preallocation;
}

export async function resizeImage(
  image: Image,
  sizeBytes: number,
  { shrink = false, preallocation = "off" }: Resizing,
  context: OpContext,
): Promise<void> {
  const options = [...(shrink ? ["--shrink"] : []), `--preallocation=${preallocation}`];
  const args = ["resize", "-q", ...options, ...named(image)];
  await run(image, [...args, String(sizeBytes)], context);
}

const Info = v.object({
  "virtual-size": v.number(),
  "actual-size": v.optional(v.number()),
  snapshots: v.optional(v.array(v.object({ name: v.string() })), []),
});

/** @returns size and inner snapshots. The backing file is not opened. */
export async function inspectImage(image: Image, context: OpContext) {
  const text = await run(image, ["info", "--output=json", ...named(image)], context);
  const info = v.parse(Info, JSON.parse(text));
  return { sizeBytes: info["virtual-size"], inner: info.snapshots.map(({ name }) => name) };
}

/** Names are not unique to qemu-img: look first. */
export async function createInner(image: Image, name: string, context: OpContext): Promise<void> {
  await run(image, ["snapshot", "-c", name, ...byOptions(image)], context);
}

export async function removeInner(image: Image, name: string, context: OpContext): Promise<void> {
  await run(image, ["snapshot", "-d", name, ...byOptions(image)], context);
}

export interface Conversion {
  readonly from: Image;
  /** The inner snapshot to take instead of the present content. */
  readonly inner?: string | undefined;
  /** Where nothing is. */
  readonly to: NewImage;
  /** Whether `from` comes from outside. */
  readonly isForeign?: boolean;
}

const FRAME = /\((\d+\.\d\d)\/100%\)/g;

/** The last progress in a piece of output, in hundredths of a percent. */
export function progressIn(text: string): number | undefined {
  const last = [...text.matchAll(FRAME)].at(-1)?.[1];
  return last === undefined ? undefined : Math.round(Number(last) * 100);
}

/** Writes an image anew, in another format or without what lies below it. Tells its progress. */
export async function convertImage(
  { from, inner, to, isForeign = false }: Conversion,
  context: OpContext,
): Promise<void> {
  const keys = from.keyFile ?? to.keyFile;
  // Into an image that is made already, so that options, keys and size are those of any new one.
  await createImage(to, context);
  const onOutput = (text: string): void => {
    const done = progressIn(text);
    if (done !== undefined)
      context.progress(Math.round((done / 10_000) * to.sizeBytes), to.sizeBytes, "bytes");
  };
  const target =
    keys === undefined ? ["-O", to.format, "-f", from.format] : ["--target-image-opts"];
  const source = keys === undefined ? from.path : optionsOf(from);
  // Where it cannot be told that the target is empty, qemu-img empties it first and gives back what it has taken.
  const kept = (to.preallocation ?? "off") === "off" ? "" : "discard=ignore,";
  const args = [
    "convert",
    "-p",
    "-n",
    ...(keys === undefined ? ["--target-is-zero"] : keyObject(keys)),
    ...target,
    ...(keys === undefined ? [] : ["--image-opts"]),
    // What an inner snapshot holds is never written again, whoever has the image open.
    ...(inner === undefined ? [] : ["-U", "-l", `snapshot.name=${inner}`]),
    "--",
    source,
    keys === undefined ? to.path : `${kept}${optionsOf(to)}`,
  ];
  await run(from, args, context, { onOutput, isConfined: isForeign });
}

const Check = v.object({
  "check-errors": v.optional(v.number(), 0),
  corruptions: v.optional(v.number(), 0),
  leaks: v.optional(v.number(), 0),
  "corruptions-fixed": v.optional(v.number(), 0),
  "leaks-fixed": v.optional(v.number(), 0),
  "allocated-clusters": v.optional(v.number()),
  "total-clusters": v.optional(v.number()),
});

/** Exit codes that tell of the image, with a report all the same. */
const CHECK_STATUS: Readonly<Record<number, ImageCheck["status"]>> = {
  2: "corrupt",
  3: "leaks",
  63: "unsupported",
};

/** @param repair mends leaked clusters, where nothing is corrupt: that is for a person to judge, and not touched */
export async function checkImage(
  image: Image,
  repair: boolean,
  context: OpContext,
): Promise<ImageCheck> {
  const found = await reportOn(image, [], context);
  // The tool fails at what is corrupt, and does not say what it has mended until then.
  return repair && found.status === "leaks" ? reportOn(image, ["-r", "leaks"], context) : found;
}

async function reportOn(
  image: Image,
  repair: readonly string[],
  context: OpContext,
): Promise<ImageCheck> {
  const args = ["check", "--output=json", ...repair, ...named(image)];
  const options = { timeoutMs: NO_TIME_LIMIT_MS };
  let status: ImageCheck["status"] = "clean";
  let stdout: string;
  try {
    ({ stdout } = await context.exec("qemu-img", args, context.signal, options));
  } catch (error) {
    const found = error instanceof CommandError ? CHECK_STATUS[error.exitCode] : undefined;
    if (!(error instanceof CommandError) || found === undefined) throw meaningOf(error, image);
    status = found;
    stdout = error.stdout;
  }
  if (status === "unsupported") return { status, corruptions: 0, leaks: 0, fixed: 0 };
  const report = v.parse(Check, JSON.parse(stdout));
  return {
    status,
    corruptions: report.corruptions,
    leaks: report.leaks,
    fixed: report["leaks-fixed"] + report["corruptions-fixed"],
  };
}

/** What these codes tell of is no reason not to read an image. */
const READABLE: readonly number[] = [3, 63];

/** Whether an image from outside holds all that its tables name: what a shorter one lacks would be read as zeros. */
export async function isSound(image: Image, context: OpContext): Promise<boolean> {
  try {
    await run(image, ["check", ...named(image)], context, { isConfined: true });
    return true;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (READABLE.includes(error.exitCode)) return true;
    if (CHECK_STATUS[error.exitCode] === "corrupt") return false;
    throw error;
  }
}

const Map = v.array(
  v.object({ start: v.number(), length: v.number(), data: v.boolean(), zero: v.boolean() }),
);

/** The first byte at or behind an offset that holds data; undefined when there is none. */
export async function dataBehind(image: Image, offset: number, context: OpContext) {
  const args = ["map", "--output=json", `--start-offset=${offset}`, ...named(image)];
  const extents = v.parse(Map, JSON.parse(await run(image, args, context)));
  return extents.find(({ data, zero }) => data && !zero)?.start;
}

/** For a map that is too long to be had in one piece. */
export function mapArguments(image: Image): readonly string[] {
  return ["map", "--output=json", ...named(image)];
}

const Measure = v.object({ required: v.number(), "fully-allocated": v.number() });

/** What a file of `format` would take for this image's content. */
export async function measureImage(image: Image, format: "raw" | "qcow2", context: OpContext) {
  const args = ["measure", "--output=json", "-O", format, ...named(image)];
  const report = v.parse(Measure, JSON.parse(await run(image, args, context)));
  return { requiredBytes: report.required, fullBytes: report["fully-allocated"] };
}
