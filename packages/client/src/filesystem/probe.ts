/** What is on a device: a file system, something else, or provably nothing. */
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";
import { isZeroWhereMarked } from "./zeros.js";

export type Content =
  | { readonly kind: "blank" }
  | {
      readonly kind: "filesystem";
      readonly type: string;
      readonly uuid?: string;
      readonly label?: string;
    }
  /** What must not be touched, in words; unknown is what no tool has a name for. */
  | { readonly kind: "other"; readonly what: string; readonly isUnknown?: true };

/** blkid(8): "nothing was found", also for a device that cannot be read; and several things at once. */
const BLKID = { nothing: 2, ambivalent: 8 } as const;

/** How much at the beginning must be zero. It has the beginning of every file system, label and header. */
const START_BYTES = 1024 ** 2;

interface Limit {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

/** Output of `blkid -o export`: lines of `KEY=value`, with a backslash before what a shell would read. */
export function parseBlkid(text: string): ReadonlyMap<string, string> {
  return new Map(
    text
      .split("\n")
      .filter((line) => line.includes("="))
      .map((line): [string, string] => {
        const equals = line.indexOf("=");
        return [line.slice(0, equals), line.slice(equals + 1).replace(/\\(.)/g, "$1")];
      }),
  );
}

const Signatures = v.object({
  signatures: v.array(
    v.object({ offset: v.string(), type: v.string(), label: v.nullish(v.string()) }),
  ),
});

export interface Signature {
  readonly type: string;
  /** As wipefs(8) prints it, in hexadecimal. */
  readonly offset: string;
}

/** Output of `wipefs --json --no-act`. Without a signature older ones print nothing at all. */
export function parseWipefs(text: string): readonly Signature[] {
  if (text.trim() === "") return [];
  return v
    .parse(Signatures, JSON.parse(text))
    .signatures.map(({ type, offset }) => ({ type, offset }));
}

async function blkid(
  exec: Exec,
  device: string,
  limit: Limit,
): Promise<ReadonlyMap<string, string> | "nothing" | "ambivalent"> {
  try {
    const args = ["--probe", "--output", "export", "--", device];
    return parseBlkid((await exec("blkid", args, limit)).stdout);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (error.exitCode === BLKID.nothing) return "nothing";
    if (error.exitCode === BLKID.ambivalent) return "ambivalent";
    throw error;
  }
}

async function signatures(exec: Exec, device: string, limit: Limit): Promise<readonly Signature[]> {
  const { stdout } = await exec("wipefs", ["--no-act", "--json", "--", device], limit);
  return parseWipefs(stdout);
}

function listed(found: readonly Signature[]): string {
  return found.map(({ type, offset }) => `${type} at ${offset}`).join(", ");
}

/**
 * @param device a node that has just proven to be the volume
 * @throws {StorageError} `unavailable` when it cannot be read
 */
export async function probe(exec: Exec, device: string, limit: Limit): Promise<Content> {
  if ((await isZeroWhereMarked(device, limit)) === true) return { kind: "blank" };
  // What was read before, as by another user of the same name, is forgotten.
  await exec("blockdev", ["--flushbufs", device], limit);
  const found = await blkid(exec, device, limit);
  if (found === "nothing") return proveBlank(exec, device, limit);
  if (found === "ambivalent")
    return {
      kind: "other",
      what: `several things at once (${listed(await signatures(exec, device, limit))})`,
    };
  const type = found.get("TYPE");
  const table = found.get("PTTYPE");
  if (type !== undefined && found.get("USAGE") === "filesystem") {
    const [uuid, label] = [found.get("UUID"), found.get("LABEL")];
    return {
      kind: "filesystem",
      type,
      ...(uuid !== undefined && { uuid }),
      ...(label !== undefined && { label }),
    };
  }
  if (type !== undefined) return { kind: "other", what: `${found.get("USAGE") ?? "data"} ${type}` };
  if (table !== undefined) return { kind: "other", what: `a partition table (${table})` };
  return { kind: "other", what: [...found].map(([key, value]) => `${key}=${value}`).join(" ") };
}

/** Blank is what no tool knows, what has no copy of a header anywhere, and what begins with nothing but zeros. */
async function proveBlank(exec: Exec, device: string, limit: Limit): Promise<Content> {
  const left = await signatures(exec, device, limit);
  if (left.length > 0) return { kind: "other", what: `a signature of ${listed(left)}` };
  try {
    await exec("cmp", [`--bytes=${START_BYTES}`, "--", device, "/dev/zero"], limit);
    return { kind: "blank" };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    // cmp(1): 1 when they differ, 2 for trouble such as a read error.
    if (error.exitCode === 1)
      return {
        kind: "other",
        what: "data in its first MiB that no tool recognises",
        isUnknown: true,
      };
    throw new StorageError(
      "unavailable",
      `${device} cannot be read: ${error.message}`,
      { ...error.data, device },
      { cause: error },
    );
  }
}
