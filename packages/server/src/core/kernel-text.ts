/** What the kernel shows of itself below /proc, /sys and configfs: it answers from its memory, and of what has gone with nothing. */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";

export function entriesOf(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Without the line's end. */
export function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8").trimEnd();
  } catch {
    return "";
  }
}

/** What a link names; empty for what is none. */
export function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
