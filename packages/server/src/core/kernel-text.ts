/** What the kernel shows of itself below /proc, /sys and configfs: it answers from its memory, and of what has gone with nothing. */
import { readFileSync, readdirSync } from "node:fs";

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
