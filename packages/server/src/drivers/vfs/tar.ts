/** tar(1) of GNU: a folder as a POSIX archive, and back. */
import { StorageError } from "@libstorage/model";
import type { Readable } from "node:stream";
import { CommandError } from "../../core/exec.js";
import type { ContentDoor, OpContext } from "../../core/driver.js";
import { usedBytes } from "../folders/du.js";
import { NO_TIME_LIMIT_MS } from "../folders/time-limit.js";

/** All that belongs to a file; owners as numbers, since names mean others elsewhere. */
const WHOLE = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"] as const;

export async function packFolder(
  folder: string,
  open: ContentDoor,
  context: OpContext,
): Promise<void> {
  const lengthBytes = await usedBytes(context, folder);
  const to = open({ format: "tar", ...(lengthBytes !== undefined && { lengthBytes }) });
  const args = ["--create", "--format=posix", "--sparse", ...WHOLE, `--directory=${folder}`, "."];
  try {
    await context.exec("tar", args, context.signal, { timeoutMs: NO_TIME_LIMIT_MS, to });
  } catch (error) {
    // Exit 1: something changed or vanished while it was read.
    if (!(error instanceof CommandError) || error.exitCode !== 1) throw error;
    throw new StorageError(
      "aborted",
      `files of ${folder} changed while they were read; stop what writes there and try again`,
      error.data,
      { cause: error },
    );
  }
}

const OUTSIDE = /Member name contains '\.\.'|Removing leading|hard link target|target names/;

/**
 * @param folder empty
 * @throws {StorageError} `invalid-argument` for an archive that is none, or that names places outside
 */
export async function unpackInto(
  folder: string,
  from: Readable,
  context: OpContext,
): Promise<void> {
  // Links are made last, so that nothing is written through one.
  const args = [
    "--extract",
    "--same-permissions",
    "--same-owner",
    ...WHOLE,
    `--directory=${folder}`,
  ];
  let stderr: string;
  try {
    const options = { timeoutMs: NO_TIME_LIMIT_MS, from };
    ({ stderr } = await context.exec("tar", args, context.signal, options));
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    ({ stderr } = error);
    if (
      !OUTSIDE.test(stderr) &&
      !/not look like a tar|Unexpected EOF|Skipping to next/.test(stderr)
    )
      throw error;
    throw refused(stderr, error);
  }
  // It takes such names for ones inside, with a word of warning.
  if (OUTSIDE.test(stderr)) throw refused(stderr);
}

function refused(stderr: string, cause?: CommandError): StorageError {
  const what = OUTSIDE.test(stderr)
    ? "it names places outside of itself"
    : "it is no whole archive";
  const [line = ""] = stderr.trim().split("\n");
  return new StorageError(
    "invalid-argument",
    `the tar archive was refused: ${what} (${line})`,
    cause?.data ?? {},
    cause && { cause },
  );
}
