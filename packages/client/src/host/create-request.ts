/** What "create" means on this host: defaults and options, section 16.4 of the contract. */
import { StorageError } from "@libstorage/model";
import type { VolumeCreateRequest } from "@libstorage/model";
import type { OperationSettings } from "./operation-settings.js";

export type CreateOptions = Readonly<Record<string, unknown>>;

function count(name: string, value: unknown, fallback: number): number {
  if (value === undefined || value === "") return fallback;
  const number = Number(value);
  // The reference takes 0 for what is no number, and so makes a volume nobody asked for.
  if (!Number.isSafeInteger(number) || number < 0)
    throw new StorageError(
      "invalid-argument",
      `${name} must be a whole number, not ${JSON.stringify(value)}`,
      { option: name },
    );
  return number;
}

/** Options are named without case; all of them also go to the driver. */
export function createRequest(
  name: string,
  options: CreateOptions,
  defaults: OperationSettings["create"],
): VolumeCreateRequest {
  const lower: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(options)) lower[key.toLowerCase()] = value;
  const text = (key: string, fallback: string): string => {
    const value = Object.hasOwn(lower, key) ? lower[key] : undefined;
    if (value === undefined) return fallback;
    if (typeof value === "string" || typeof value === "number") return String(value);
    throw new StorageError("invalid-argument", `${key} must be a text`, { option: key });
  };
  const encrypted = lower["encrypted"];
  return {
    name,
    availabilityZone: text("availabilityzone", defaults.availabilityZone),
    iops: count("iops", lower["iops"], defaults.iops),
    size: count("size", lower["size"], defaults.size),
    type: text("type", text("volumetype", defaults.type)),
    ...(encrypted !== undefined && { encrypted: encrypted === true || encrypted === "true" }),
    ...(Object.keys(lower).length > 0 && { opts: lower }),
  };
}
