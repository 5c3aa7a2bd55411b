/** The ids of the reference's vfs. */
import { folderIDs } from "../folders/ids.js";

export const VFS_IDS = folderIDs("vfs");
