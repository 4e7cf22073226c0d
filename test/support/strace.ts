/**
 * What a process does to files, from strace's own words: a list of calls in the order in which they were entered, each with the
 * place in the recording where it began and where it was done. Between the two anything may be true.
 *
 * Only calls below the given folders are kept. A call that could change a file there and is not understood is an error, never
 * passed over: a recording that misses one proves nothing. Cost: the trace is four times the bytes written, and read once.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'

/** Everything by which a file or a name in a folder changes or becomes durable. */
const TRACED = [
  'open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,dup,dup2,dup3,mmap,msync',
  'truncate,ftruncate,fallocate,fsync,fdatasync,sync,syncfs,sync_file_range,copy_file_range,sendfile,splice',
  'rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,mknod,mknodat',
  'io_uring_setup',
].join(',')
/** Bytes of a string that are shown: more than any write has. */
const SHOWN = 64 * 1024 * 1024

/** Runs a program under strace; the recording is whole once the child has closed. */
export function traced(recording: string, program: string, words: readonly string[]): ChildProcess {
  const options = ['-f', '--seccomp-bpf', '-qq', '-ttt', '-y', '-xx', '-s', String(SHOWN), '-o', recording]
  // What Node would do by io_uring no tracer of system calls could see.
  const env = { ...process.env, UV_USE_IO_URING: '0' }
  return spawn('strace', [...options, '-e', `trace=${TRACED}`, program, ...words], { env })
}

export type FileChange =
  | {
      readonly kind: 'open'
      readonly path: string
      readonly create: boolean
      readonly truncate: boolean
      readonly append: boolean
      readonly fd: number | null
    }
  | {
      readonly kind: 'write'
      readonly fd: number
      readonly data: Buffer /** null: where the descriptor stands. */
      readonly offset: number | null
    }
  | { readonly kind: 'seek'; readonly fd: number; readonly to: number }
  | { readonly kind: 'size'; readonly fd: number; readonly size: number }
  | { readonly kind: 'sync'; readonly fd: number }
  | { readonly kind: 'make-folder' | 'remove'; readonly path: string }
  | { readonly kind: 'rename' | 'link'; readonly path: string; readonly to: string }

/** `began` and `done` are lines of the recording, counted from 0; `done` is Infinity for what the end of the process cut short. */
export type FileCall = FileChange & { readonly began: number; readonly done: number }

export interface Trace {
  readonly calls: readonly FileCall[]
  /** When each line was written: ms since the epoch. Never decreasing. */
  readonly times: Float64Array
}

const LINE = /^(\d+) +(\d+\.\d+) /
const RESUMED = /^<\.\.\. \w+ resumed>/
const UNFINISHED = ' <unfinished ...>'

/** Reads a recording; `roots` are absolute folders or files. Throws for a call that it cannot tell in full. */
export function readTrace(recording: string, roots: readonly string[]): Trace {
  const bytes = readFileSync(recording)
  const calls: FileCall[] = []
  const times: number[] = []
  const open = new Map<string, { began: number; words: string }>()
  const take = (words: string, began: number, done: number) => {
    const change = changeOf(words, roots)
    if (change !== null) calls.push({ ...change, began, done })
  }
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(10, at)
    const line = bytes.toString('latin1', at, end < 0 ? bytes.length : end)
    at = end < 0 ? bytes.length : end + 1
    const number = times.length
    const [prefix, pid, seconds] = LINE.exec(line) ?? []
    if (prefix === undefined)
      throw new Error(`line ${number} of the recording is no call: ${line.slice(0, 200)}`)
    times.push(Math.max(times.at(-1) ?? 0, Number(seconds) * 1000))
    const words = line.slice(prefix.length)
    const resumed = RESUMED.exec(words)
    if (words.endsWith(UNFINISHED))
      open.set(pid!, { began: number, words: words.slice(0, -UNFINISHED.length) })
    else if (resumed !== null) {
      const before = open.get(pid!)
      if (before === undefined)
        throw new Error(`line ${number} of the recording goes on with a call that never began`)
      open.delete(pid!)
      take(before.words + words.slice(resumed[0].length), before.began, number)
    } else if (!words.startsWith('+++') && !words.startsWith('---'))
      take(words, number, words.endsWith(' = ?') ? Number.POSITIVE_INFINITY : number)
  }
  for (const { began, words } of open.values()) take(`${words}) = ?`, began, Number.POSITIVE_INFINITY)
  calls.sort((a, b) => a.began - b.began)
  return { calls, times: Float64Array.from(times) }
}

const HEX = '((?:\\\\x[0-9a-f]{2})*)'
const FD = `(\\d+)<${HEX}>(?:\\(deleted\\))?`
const AT = `(?:AT_FDCWD|\\d+)<${HEX}>(?:\\(deleted\\))?`
const STRING = `"${HEX}"`
const END = '\\) += (-?\\d+|\\?)'
const PATTERNS = {
  openat: new RegExp(`^\\(${AT}, ${STRING}, ([A-Z_|0-9]+)(?:, \\d+)?${END}`),
  write: new RegExp(`^\\(${FD}, ${STRING}, \\d+${END}`),
  pwrite64: new RegExp(`^\\(${FD}, ${STRING}, \\d+, (\\d+)${END}`),
  writev: new RegExp(`^\\(${FD}, \\[(.*)\\], \\d+(?:, (\\d+))?${END}`),
  numbers: new RegExp(`^\\(${FD}(?:, (\\d+))?${END}`),
  seek: new RegExp(`^\\(${FD}, -?\\d+, SEEK_\\w+${END}`),
  one: new RegExp(`^\\((?:${AT}, )?${STRING}[^"]*?${END}`),
  two: new RegExp(`^\\((?:${AT}, )?${STRING}, (?:${AT}, )?${STRING}[^"]*?${END}`),
} as const

function changeOf(words: string, roots: readonly string[]): FileChange | null {
  const name = words.slice(0, words.indexOf('('))
  const rest = words.slice(name.length)
  // Which changed nothing.
  if (/ = -1 E[A-Z]+ \([^)]*\)$/.test(rest)) return null
  const inside = (path: string) => roots.some((root) => path === root || path.startsWith(`${root}/`))
  const match = (pattern: RegExp): RegExpExecArray => {
    const found = pattern.exec(rest)
    if (found === null) throw unknown(words)
    return found
  }
  const ofFile = <T extends FileChange>(
    pattern: RegExp,
    make: (fd: number, found: RegExpExecArray) => T,
  ): T | null => {
    // Only what is named below the folders is read closer: sockets, pipes and terminals have words of their own.
    const [, path] = new RegExp(`^\\(\\d+<${HEX}>`).exec(rest) ?? []
    if (path === undefined || !inside(text(path))) return null
    const found = match(pattern)
    return make(Number(found[1]), found)
  }
  const ofPath = (folder: string | undefined, path: string): string => resolve(text(folder ?? ''), text(path))
  switch (name) {
    case 'openat': {
      const [, folder, file, flags, result] = match(PATTERNS.openat)
      const path = ofPath(folder, file!)
      if (!inside(path)) return null
      const has = (flag: string) => flags!.split('|').includes(flag)
      const fd = result === '?' ? null : Number(result)
      return {
        kind: 'open',
        path,
        create: has('O_CREAT'),
        truncate: has('O_TRUNC'),
        append: has('O_APPEND'),
        fd,
      }
    }
    case 'write':
      return ofFile(PATTERNS.write, (fd, [, , , data, result]) => ({
        kind: 'write',
        fd,
        data: written(data!, result!),
        offset: null,
      }))
    case 'pwrite64':
      return ofFile(PATTERNS.pwrite64, (fd, [, , , data, offset, result]) => ({
        kind: 'write',
        fd,
        data: written(data!, result!),
        offset: Number(offset),
      }))
    case 'writev':
    case 'pwritev':
      return ofFile(PATTERNS.writev, (fd, [, , , parts, offset, result]) => {
        const all = [...parts!.matchAll(/iov_base="((?:\\x[0-9a-f]{2})*)"/g)].map(([, hex]) => hex).join('')
        return {
          kind: 'write',
          fd,
          data: written(all, result!),
          offset: offset === undefined ? null : Number(offset),
        }
      })
    case 'lseek':
      return ofFile(PATTERNS.seek, (fd, found) => ({ kind: 'seek', fd, to: Number(found[3]) }))
    case 'ftruncate':
      return ofFile(PATTERNS.numbers, (fd, found) => ({ kind: 'size', fd, size: Number(found[3]) }))
    case 'fsync':
    case 'fdatasync':
      return ofFile(PATTERNS.numbers, (fd) => ({ kind: 'sync', fd }))
    case 'rename':
    case 'renameat':
    case 'renameat2':
    case 'link':
    case 'linkat': {
      const [, folder, from, toFolder, to] = match(PATTERNS.two)
      const [path, target] = [ofPath(folder, from!), ofPath(toFolder, to!)]
      if (inside(path) !== inside(target) || /RENAME_|AT_EMPTY_PATH/.test(rest)) throw unknown(words)
      return inside(path) ? { kind: name.startsWith('link') ? 'link' : 'rename', path, to: target } : null
    }
    case 'mkdir':
    case 'mkdirat':
    case 'unlink':
    case 'unlinkat':
    case 'rmdir': {
      const [, folder, file] = match(PATTERNS.one)
      const path = ofPath(folder, file!)
      return inside(path) ? { kind: name.startsWith('mkdir') ? 'make-folder' : 'remove', path } : null
    }
    case 'mmap':
      // Of a file, and written through it: no call would tell.
      if (rest.includes('MAP_SHARED') && rest.includes('PROT_WRITE') && mentions(rest, inside))
        throw unknown(words)
      return null
    case 'io_uring_setup':
      throw unknown(words)
    default:
      // Bytes or names by a way that is not read above; what is read only is none of them.
      if (mentions(rest, inside)) throw unknown(words)
      return null
  }
}

const mentions = (rest: string, inside: (path: string) => boolean): boolean =>
  [...rest.matchAll(/[<"]((?:\\x[0-9a-f]{2})+)[>"]/g)].some(([, hex]) => inside(text(hex!)))

const unknown = (words: string): Error =>
  new Error(`the recording has a call that is not understood: ${words.slice(0, 300)}`)

const text = (hex: string): string => decode(hex).toString()

/** What reached the file: a call may write less than it was asked to. One that never ended may have written all. */
function written(hex: string, result: string): Buffer {
  const data = decode(hex)
  return result === '?' ? data : data.subarray(0, Number(result))
}

const decode = (hex: string): Buffer => Buffer.from(hex.replaceAll('\\x', ''), 'hex')
