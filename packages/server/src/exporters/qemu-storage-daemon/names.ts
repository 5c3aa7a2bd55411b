/** Names by which the storage daemon knows exports. */
import { short } from "./layout.js";

/** As it is, where a URI can carry it; two names never become one. */
export function plainName(text: string): string {
  return /^[A-Za-z0-9._-]{1,160}$/.test(text) ? text : `x-${short(text)}`;
}
