# Builds on the file system that is the current folder: build-tree.sh REPOSITORY. Leaves only what is the same in each
# reading, so that hashes of all files can be compared later.
set -eu
repository=$1

mkdir repository
cp -r "$repository/shared" "$repository/guest" "$repository/parent" "$repository/tsconfig.json" "$repository/package.json" \
  repository
ln -s "$repository/node_modules" repository/node_modules
for part in shared parent guest; do
  repository/node_modules/.bin/tsc -b "repository/$part"
done

# Many small files, most of them renamed, some deleted, each folder synced at another moment.
mkdir small
for folder in 0 1 2 3 4 5 6 7; do
  mkdir "small/$folder"
  for file in $(seq 50); do
    echo "$POSTERN_MARKER $folder $file" >"small/$folder/$file"
  done
  sync "small/$folder"
  mv "small/$folder" "small/folder-$folder"
  rm "small/folder-$folder"/*7
done
cp small/folder-0/1 "$POSTERN_MARKER"
mkdir links
ln small/folder-1/1 links/hard
ln -s ../small/folder-1/2 links/symbolic

# A file with holes, and one that goes again, with its space given back.
dd if=/dev/urandom of=holes bs=1M count=8 conv=fsync status=none
fallocate --punch-hole --offset 1000000 --length 3000000 holes
fallocate --punch-hole --offset 6291456 --length 4096 holes
fallocate --zero-range --offset 100 --length 70000 holes
dd if=/dev/urandom of=gone bs=1M count=96 conv=fsync status=none
rm gone
for n in $(seq 10); do
  echo "$n" >>journal
  sync journal
done
sync
fstrim .
