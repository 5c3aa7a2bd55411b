/** The text of the `Libstorage-Localdevices` header, section 4.2 of the contract. */
import { StorageError } from "./errors.js";

export interface LocalDevices {
  readonly driver: string;
  /** Device path to mount point, or volume id to device path, as the driver has it. */
  readonly deviceMap: Readonly<Record<string, string>>;
}

function invalid(value: string, why: string): StorageError {
  return new StorageError("invalid-argument", `invalid LocalDevices: ${why}`, { value });
}

/**
 * Reads `DRIVER=KEY::VALUE[,KEY::VALUE…]`, or `DRIVER=` for none.
 * @throws {StorageError} `invalid-argument`, with the text in `data.value`
 */
export function parseLocalDevices(text: string): LocalDevices {
  const equals = text.indexOf("=");
  if (equals < 1) throw invalid(text, "the form is DRIVER=KEY::VALUE[,KEY::VALUE…]");
  const driver = text.slice(0, equals).toLowerCase();
  if (/\s/.test(driver)) throw invalid(text, "the driver has a blank");
  const entries = text
    .slice(equals + 1)
    .split(",")
    .filter((pair, _index, all) => all.length > 1 || pair !== "")
    .map((pair): [string, string] => {
      const parts = pair.split("::");
      const [key = "", value = ""] = parts;
      if (parts.length !== 2 || key === "") throw invalid(text, `"${pair}" is not KEY::VALUE`);
      if (/^\s/.test(key)) throw invalid(text, "there is a blank after a comma");
      return [key, value];
    });
  return { driver, deviceMap: Object.fromEntries(entries) };
}

/** The header text that `parseLocalDevices` reads back as the same value. */
export function formatLocalDevices({ driver, deviceMap }: LocalDevices): string {
  const pairs = Object.keys(deviceMap)
    .toSorted()
    .map((key) => `${key}::${deviceMap[key] ?? ""}`);
  return `${driver}=${pairs.join(",")}`;
}
