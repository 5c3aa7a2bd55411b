/** Whether a volume that is there is the one that was asked for. */
import type { Volume } from "@libstorage/model";
import type { CreateOptions } from "./options.js";

/** What differs, for people; an option that was not given is not compared. */
export function differences(volume: Volume, wanted: CreateOptions): readonly string[] {
  const found: string[] = [];
  type Value = string | number | boolean | undefined;
  const compare = (what: string, is: Value, asked: Value, unit = ""): void => {
    if (asked === undefined || is === asked) return;
    const now = is === undefined || is === "" ? "not set" : `${String(is)}${unit}`;
    found.push(`${what} is ${now}, not ${String(asked)}${unit}`);
  };
  compare("size", volume.size ?? 0, wanted.size, " GiB");
  compare("type", volume.type, wanted.type);
  compare("iops", volume.iops ?? 0, wanted.iops);
  compare("availabilityzone", volume.availabilityZone ?? "", wanted.availabilityZone);
  compare("encrypted", volume.encrypted ?? false, wanted.encrypted);
  for (const [name, asked] of Object.entries(wanted.fields)) {
    const is = volume.fields?.[name];
    // A volume that says nothing of it is not shareable.
    compare(name, name === "shareable" ? (is ?? "false") : is, asked);
  }
  return found;
}
