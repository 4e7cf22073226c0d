/**
 * The first file system of a guest: a cpio archive (newc) of what it needs, made here so that no tool for that is needed.
 * Programs of this machine go in with the libraries that they ask for. Costs their size in memory, about 8 MB.
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

const DIRECTORY = 0o040755
const PROGRAM = 0o100755

/** `files`: by their path in the guest, without a slash in front. Folders are added as they are needed. */
export function cpio(files: ReadonlyMap<string, Uint8Array>): Buffer {
  const folders = new Set<string>()
  for (const name of files.keys())
    for (let folder = dirname(name); folder !== '.'; folder = dirname(folder)) folders.add(folder)
  const parts: Uint8Array[] = []
  const add = (name: string, mode: number, data: Uint8Array): void => {
    const path = Buffer.from(`${name}\0`)
    // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, checksum
    const fields = [0, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, path.length, 0]
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`
    parts.push(Buffer.from(header), path, padding(header.length + path.length), data, padding(data.length))
  }
  for (const folder of [...folders].sort()) add(folder, DIRECTORY, Buffer.alloc(0))
  for (const [name, data] of files) add(name, PROGRAM, data)
  add('TRAILER!!!', 0, Buffer.alloc(0))
  return Buffer.concat(parts)
}

function padding(length: number): Uint8Array {
  return Buffer.alloc((4 - (length % 4)) % 4)
}

/** A program of this machine and the libraries that it is linked with, each where the loader looks for it. */
export function withLibraries(program: string): [name: string, data: Uint8Array][] {
  const linked = execFileSync('ldd', [program], { encoding: 'utf8' })
  const libraries = [...linked.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, path]) => path!)
  return [
    [`host/${basename(program)}`, readFileSync(program)],
    ...libraries.map((path): [string, Uint8Array] => [path.slice(1), readFileSync(path)]),
  ]
}

/** Every file of a folder, as files of `to`. */
export function folderOf(folder: string, to: string): [name: string, data: Uint8Array][] {
  return readdirSync(folder).map((name) => [`${to}/${name}`, readFileSync(join(folder, name))])
}
