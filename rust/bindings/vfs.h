/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Macros of the VFS headers that bindgen does not evaluate.
 */

const unsigned int KFS_CONST_SB_RDONLY = SB_RDONLY;
const unsigned int KFS_CONST_SB_ACTIVE = SB_ACTIVE;
const unsigned int KFS_CONST_SB_POSIXACL = SB_POSIXACL;
const unsigned int KFS_CONST_SB_NOATIME = SB_NOATIME;
const unsigned int KFS_CONST_S_SYNC = S_SYNC;
const unsigned int KFS_CONST_S_NOATIME = S_NOATIME;
const unsigned int KFS_CONST_S_APPEND = S_APPEND;
const unsigned int KFS_CONST_S_IMMUTABLE = S_IMMUTABLE;
const unsigned int KFS_CONST_FMODE_CAN_ODIRECT = (unsigned int)FMODE_CAN_ODIRECT;
const int KFS_CONST_IOCB_DIRECT = IOCB_DIRECT;
const int KFS_CONST_IOCB_NOWAIT = IOCB_NOWAIT;
const unsigned int KFS_CONST_FILEID_INVALID = FILEID_INVALID;
const unsigned int KFS_CONST_ESCAPE_OCTAL = ESCAPE_OCTAL;
const unsigned int KFS_CONST_ATTR_MODE = ATTR_MODE;
const unsigned int KFS_CONST_ATTR_UID = ATTR_UID;
const unsigned int KFS_CONST_ATTR_GID = ATTR_GID;
const unsigned int KFS_CONST_ATTR_SIZE = ATTR_SIZE;
const unsigned int KFS_CONST_ATTR_ATIME = ATTR_ATIME;
const unsigned int KFS_CONST_ATTR_MTIME = ATTR_MTIME;
const unsigned int KFS_CONST_ATTR_CTIME = ATTR_CTIME;
const unsigned int KFS_CONST_ATTR_FILE = ATTR_FILE;
const unsigned int KFS_CONST_ATTR_OPEN = ATTR_OPEN;
const unsigned int KFS_CONST_I_DIRTY_TIME = I_DIRTY_TIME;
const unsigned int KFS_CONST_FS_IMMUTABLE_FL = FS_IMMUTABLE_FL;
