/** Names by which the storage daemon knows exports. */
import type { Hold } from "../../core/exporter.js";
import { short } from "./layout.js";

/** As it is, where a URI can carry it; two names never become one. */
export function plainName(text: string): string {
  return /^[A-Za-z0-9._-]{1,160}$/.test(text) ? text : `x-${short(text)}`;
}

/** The name in a hold's record; without a name of its own choice, that no other hold ever has. */
export function exportNameOf({ attachment }: Hold): string {
  return attachment.fields?.["export"] ?? "";
}

/** The daemon's id of an export. */
export function exportIDOf(hold: Hold): string {
  return `e-${short(exportNameOf(hold))}`;
}
