/** What a SCSI device says of itself now, asked by scsi_id(8) of udev: /sys only remembers what it once said. */
import type { Exec } from "../../executor/exec.js";
import { CommandError } from "../../executor/exec.js";

export interface ScsiIdentity {
  /** Empty for a LUN that is no longer mapped: it is asked and answers nothing. */
  readonly wwid: string;
  readonly serial: string;
}

/** Not in the PATH. Other systems have it below /usr. */
const PROGRAMS = ["/lib/udev/scsi_id", "/usr/lib/udev/scsi_id"];

/** Reads lines of `KEY=value`. */
export function parseScsiID(text: string): ScsiIdentity {
  const values = new Map(
    text.split("\n").map((line): [string, string] => {
      const equals = line.indexOf("=");
      return [line.slice(0, equals), line.slice(equals + 1).trim()];
    }),
  );
  return {
    wwid: (values.get("ID_SERIAL") ?? "").toLowerCase(),
    serial: values.get("ID_SCSI_SERIAL") ?? "",
  };
}

/** @throws {CommandError} when the device does not answer */
export async function scsiIdentity(
  exec: Exec,
  node: string,
  limit: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<ScsiIdentity> {
  const args = ["--whitelisted", "--page=0x83", "--export", `--device=${node}`];
  for (const [index, program] of PROGRAMS.entries())
    try {
      return parseScsiID((await exec(program, args, limit)).stdout);
    } catch (error) {
      const isMissing = error instanceof CommandError && /is not installed/.test(error.message);
      if (!isMissing || index === PROGRAMS.length - 1) throw error;
    }
  throw new Error("unreachable");
}
